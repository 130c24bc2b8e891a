"""Output of `offhook demo`: one line per event in a file, no broken words in a terminal."""

import io

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


def test_terminal_output_wraps_between_words() -> None:
    complete = set(" ".join(shown(500, terminal=False)).split())
    for width in (70, 80, 100):
        lines = shown(width, terminal=True)
        assert max(map(len, lines)) <= width
        assert complete <= set(" ".join(lines).split()), width


def test_file_output_has_one_line_per_event_and_attempt() -> None:
    lines = [line for line in shown(40, terminal=False) if "0003*210" in line]
    assert len(lines) == len(TYPES) + 1
