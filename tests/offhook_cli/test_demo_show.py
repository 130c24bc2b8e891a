"""What `offhook demo` prints: whole lines in a file, and no broken word in a terminal."""

import io

import pytest
from rich.console import Console

from offhook import EventType
from offhook.testing import sample_event
from offhook_cli.demo.show import Show

TYPES = (EventType.DIAL_IN, EventType.CALL_ENDED, EventType.HANGUP)
ATTEMPT = {"handler": "call-log", "type": "dial-in", "extension": "0003*210", "attempt": 1}
FAILED = {"outcome": "failed", "error": "answered 503"}


def shown(width: int, *, terminal: bool) -> list[str]:
    file = io.StringIO()
    show = Show(
        Console(file=file, width=width, force_terminal=terminal, color_system=None, highlight=False)
    )
    show.legend()
    for each in TYPES:
        show.event(sample_event(each))
    show.attempt(ATTEMPT | FAILED)
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [70, 80, 100])
def test_in_a_terminal_a_long_line_goes_on_beside_its_head(width: int) -> None:
    lines = shown(width, terminal=True)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    for word in " ".join(shown(500, terminal=False)).split():
        assert word in words


def test_in_a_file_every_event_and_every_attempt_is_a_line() -> None:
    lines = [line for line in shown(40, terminal=False) if "0003*210" in line]
    assert len(lines) == len(TYPES) + 1
