"""One attempt at a delivery: its backoff, its log keys, and its record for `offhook demo`."""

import random
import time
from typing import Any

from offhook.errors import DeliveryError, TemporaryError
from offhook.event import CallEvent

MAX_WAIT = 86400.0  # seconds; limits Retry-After


def wait_before(seconds: float, error: Exception) -> float:
    """Return the seconds to wait before a redelivery.

    That is the target's Retry-After, or `seconds` with up to 20 % of jitter.
    """
    if isinstance(error, TemporaryError) and error.retry_after is not None:
        return min(max(1.0, error.retry_after), MAX_WAIT)
    return seconds * random.uniform(1.0, 1.2)


def sentence(error: Exception) -> str:
    """Return the error's message; for a bug, with the type of the exception."""
    said = str(error) if isinstance(error, DeliveryError) else f"{type(error).__name__}: {error}"
    return encodable(said)


def encodable(text: str) -> str:
    """Replace what UTF-8 cannot encode: a text in an exception may come from anywhere."""
    return text.encode(errors="replace").decode()


def event_keys(event: CallEvent, handler: str, attempt: int) -> dict[str, Any]:
    """Return the keys of every log line about a delivery."""
    return {
        "tenant": event.tenant,
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
    """Return a record for `Inbox.publish` of an attempt that has just ended.

    In it, `waited` is the seconds from the event's acceptance to the start of the attempt, and
    `took` the seconds of the attempt.

    Args:
        called: when the attempt started, in seconds since 1970.
        outcome: `delivered`, `failed` (to be retried) or `dead`.
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
