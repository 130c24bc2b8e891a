"""`Console`: print events, to see that they arrive. Also the shortest example of a handler."""

import sys
from dataclasses import dataclass

from offhook import CallEvent, Context, Handler


@dataclass(frozen=True)
class Console(Handler):
    """Print a line for every event to the worker's standard output."""

    async def handle(self, event: CallEvent, context: Context) -> None:
        caller = event.caller.number or event.caller.extension or "unknown"
        called = event.called.number or event.called.extension or "unknown"
        status = f" ({event.status})" if event.status else ""
        line = (
            f"{event.received:%H:%M:%S} {event.type:<10} {event.extension}"
            f"  {caller} → {called}{status}  call {event.call_id}"
        )
        # A caller's name may hold line breaks, and sequences that control a terminal.
        sys.stdout.write(
            "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
        )
        sys.stdout.write("\n")
        sys.stdout.flush()
