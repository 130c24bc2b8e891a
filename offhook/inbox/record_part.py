"""`RecordPart`: attempts at deliveries as they are written, with the acknowledgements.

Redis keeps each attempt once, with its call, and two lists of calls by time: docs/redis-keys.md.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from offhook.event import CallEvent

MOST_CALLS = 100  # in one part: a reader of a list reads the attempts of a part's calls at once
LONGEST_ANSWER = 300  # characters
_encode = msgspec.json.Encoder().encode


class AttemptOutcome(StrEnum):
    """How an attempt ended. `CIRCUIT_OPEN`: it failed, and does not count."""

    DELIVERED = "delivered"
    FAILED = "failed"
    DEAD = "dead"
    CIRCUIT_OPEN = "circuit-open"


class AttemptMade(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One attempt, in the form that Redis keeps with its event.

    Attributes:
        began: in ms since 1970.
        took: in µs.
        answer: the start of the target's answer, or the error.
    """

    handler: str
    attempt: int
    began: int
    took: int
    outcome: AttemptOutcome
    answer: str

    @classmethod
    def of(
        cls,
        handler: str,
        attempt: int,
        began: float,
        ended: float,
        outcome: AttemptOutcome,
        answer: str,
    ) -> "AttemptMade":
        """Describe an attempt that has just ended. Times are in seconds since 1970."""
        took = int((ended - began) * 1e6) if ended > began else 0  # the clock may be set back
        return cls(handler, attempt, int(began * 1000), took, outcome, answer[:LONGEST_ANSWER])


class AttemptsAtEvent(msgspec.Struct, array_like=True, gc=False):
    """The attempts at one event, in the form that Redis keeps with its call."""

    event: str
    type: str
    extension: str
    attempts: list[AttemptMade]


class RecordedAttempt(msgspec.Struct, frozen=True):
    """One attempt, for people.

    Attributes:
        event: the event's id.
        attempt: 1 for the first one.
        took: seconds.
        answer: the start of the target's answer, or the error.
    """

    handler: str
    call: str
    event: str
    type: str
    extension: str
    attempt: int
    began: datetime
    took: float
    outcome: AttemptOutcome
    answer: str

    @classmethod
    def of(cls, call: str, at: AttemptsAtEvent, made: AttemptMade) -> "RecordedAttempt":
        """An attempt as Redis keeps it, with what it is about."""
        began = datetime.fromtimestamp(made.began / 1000, UTC)
        about = (made.handler, call, at.event, at.type, at.extension)
        return cls(*about, made.attempt, began, made.took / 1e6, made.outcome, made.answer)

    def as_dict(self) -> dict[str, Any]:
        """The attempt as JSON values."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


class RecordPart:
    """Attempts at one tenant's events since the last flush, or a part of them."""

    __slots__ = ("_calls", "_events", "_failed", "_handlers", "tenant")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self._calls: dict[str, list[AttemptsAtEvent]] = {}
        self._events: dict[str, AttemptsAtEvent] = {}  # the same, by id
        self._handlers: dict[str, None] = {}
        self._failed: dict[str, None] = {}

    @property
    def is_full(self) -> bool:
        """Whether another part must begin."""
        return len(self._calls) >= MOST_CALLS

    def add(self, event: CallEvent, made: AttemptMade) -> None:
        """Add an attempt at an event."""
        self._handlers[made.handler] = None
        if made.outcome is not AttemptOutcome.DELIVERED:
            self._failed[made.handler] = None
        at = self._events.get(event.id)
        if at is not None:
            at.attempts.append(made)
            return
        at = AttemptsAtEvent(event.id, event.type, event.extension, [made])
        self._events[event.id] = at
        self._calls.setdefault(event.call, []).append(at)

    def dump(self) -> list[bytes]:
        """Encode it for flush.lua: calls, handlers, those that failed, a line for each call."""
        lines = b"\n".join([_encode(events) for events in self._calls.values()])
        return [
            _encode([*self._calls]),
            _encode([*self._handlers]),
            _encode([*self._failed]),
            lines,
        ]
