"""Run with pytest. Neither a PBX nor a Redis server is needed."""

from pathlib import Path

import pytest
from offhook.testing import deliver, sample_event

from missed_calls import missed_calls


def test_each_missed_call_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    deliver(missed_calls, sample_event("missed-call"))
    deliver(missed_calls, sample_event("missed-call", extension="0003*211"))
    assert Path("missed-calls.txt").read_text() == (
        "2026-11-21 19:30 Jane Doe called 0003*210\n2026-11-21 19:30 Jane Doe called 0003*211\n"
    )
