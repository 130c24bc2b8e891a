"""An Offhook handler: appends missed calls to a text file."""

from pathlib import Path

from offhook import CallEvent

FILE = Path("missed-calls.txt")  # in the folder where `offhook work` runs


def missed_calls(event: CallEvent) -> None:
    """Append every missed call to missed-calls.txt."""
    caller = event.caller.name or event.caller.number or "unknown"
    with FILE.open("a") as file:
        file.write(f"{event.received:%Y-%m-%d %H:%M} {caller} called {event.extension}\n")
