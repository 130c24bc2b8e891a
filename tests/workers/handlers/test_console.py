"""The console handler: what a caller may do to a terminal."""

import pytest

from offhook import Party
from offhook.testing import configured, deliver, sample_event
from workers.handlers.console import Console


def test_an_event_is_one_printable_line(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07\r\n12:00:00 dial-in\u2028\u202e\x9b31m"
    party = Party(number=hostile, name=hostile)
    event = sample_event("hangup", caller=party, called=party, status=hostile, call_id=hostile)
    deliver(configured(Console), event)
    printed = capsys.readouterr().out
    assert printed.endswith("\n")
    assert printed[:-1].isprintable()
    assert "12:00:00 dial-in" in printed
