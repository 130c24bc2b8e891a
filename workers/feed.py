"""What was delivered, told to those who watch: one record for each attempt."""

import time
from typing import Any

from offhook.event import CallEvent
from workers.failure import sentence


def attempt_record(
    handler: str,
    event: CallEvent,
    attempt: int,
    called: float,
    outcome: str,
    error: Exception | None = None,
) -> dict[str, Any]:
    """One attempt to deliver an event, just ended.

    Args:
        called: when the handler was called, seconds since 1970.
        outcome: `delivered`, `failed` (it will be tried again) or `dead`.

    Returns:
        A record for `Inbox.publish`; `waited` is the seconds from the event's acceptance to the
        call of the handler, `took` those that the handler took.
    """
    return {
        "handler": handler,
        "event": event.id,
        "call": event.call,
        "type": event.type,
        "extension": event.extension,
        "attempt": attempt,
        "outcome": outcome,
        "error": sentence(error) if error else None,
        "waited": called - event.received.timestamp(),
        "took": time.time() - called,
    }
