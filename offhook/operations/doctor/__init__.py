"""The doctor: what is wrong with an installation, and what to do about it.

`examination` looks, the modules `..._checks` judge what it saw, one group each, and `bundle` packs
the result for a bug report.
"""

from offhook.operations.doctor.bundle import write_bundle
from offhook.operations.doctor.diagnosis import Diagnosis, Finding, Findings, Verdict
from offhook.operations.doctor.examination import Examination, examine

__all__ = [
    "Diagnosis",
    "Examination",
    "Finding",
    "Findings",
    "Verdict",
    "examine",
    "write_bundle",
]
