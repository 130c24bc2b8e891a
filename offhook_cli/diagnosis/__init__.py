"""The doctor: what is wrong with an installation, and what to do about it.

`examination` looks, the modules `..._checks` judge what it saw, one group each, and `bundle` packs
the result for a bug report.
"""

from offhook_cli.diagnosis.bundle import write_bundle
from offhook_cli.diagnosis.examination import Examination, examine
from offhook_cli.diagnosis.findings import Diagnosis, Finding, Findings, Verdict

__all__ = [
    "Diagnosis",
    "Examination",
    "Finding",
    "Findings",
    "Verdict",
    "examine",
    "write_bundle",
]
