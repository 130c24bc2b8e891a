"""One attempt at a delivery: how long until the next one, what is logged, and what watchers see."""

import random
import time
from typing import Any

from offhook.errors import DeliveryError, TemporaryError
from offhook.event import CallEvent

LONGEST_WAIT = 86400.0  # seconds that a Retry-After may ask for


def wait_before(seconds: float, error: Exception) -> float:
    """The seconds to wait before a redelivery: what the other side asked for, or `seconds` and a
    little more, so that what failed together does not come back together."""
    if isinstance(error, TemporaryError) and error.retry_after is not None:
        return min(max(1.0, error.retry_after), LONGEST_WAIT)
    return seconds * random.uniform(1.0, 1.2)


def sentence(error: Exception) -> str:
    """What an operator reads. A bug says its type, too."""
    return str(error) if isinstance(error, DeliveryError) else f"{type(error).__name__}: {error}"


def event_keys(event: CallEvent, handler: str, attempt: int) -> dict[str, Any]:
    """The keys that every log line about a delivery carries."""
    return {
        "event": event.id,
        "call": event.call,
        "extension": event.extension,
        "handler": handler,
        "attempt": attempt,
    }


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
