"""`Call`: who called whom, who answered, how long it rang and lasted, and how it ended.

VoipNow sends none of that: `offhook.calls` folds it from the events of a call.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec

Direction = Literal["in", "out", "internal"]

CALL_LOG = "calls"  # reserved for folding events into calls; no handler has this name


class Kind(StrEnum):
    """The kind of an extension. When a queue or an IVR answers, no person has answered yet."""

    PHONE = "phone"
    QUEUE = "queue"
    IVR = "ivr"
    CONFERENCE = "conference"


class Outcome(StrEnum):
    """How a call ended. See the table in `docs/calls.md`."""

    ANSWERED = "answered"
    MISSED = "missed"
    BUSY = "busy"
    CANCELLED = "cancelled"
    UNREACHABLE = "unreachable"
    FAILED = "failed"


class Gap(StrEnum):
    """What is unknown about a call, usually because a callback is missing."""

    DIAL = "dial"  # a leg without its dial-in or dial-out: when it began to ring
    ANSWER = "answer"  # an answered leg without its answer: when the conversation began
    HANGUP = "hangup"  # a leg without its hangup: when and how it ended
    STATUS = "status"  # a hangup that does not say how the leg ended
    KIND = "kind"  # an extension of unknown kind answered: a person, or an IVR
    DIRECTION = "direction"  # a short number that may be an extension: whether it is internal
    EVENTS = "events"  # more events than a call may have
    LATE = "late"  # an event came after the call counted as ended


# What is unknown, in words for people.
UNKNOWN: Mapping[Gap, str] = {
    Gap.DIAL: "when a phone began to ring",
    Gap.ANSWER: "when the call was answered",
    Gap.HANGUP: "when a leg ended",
    Gap.STATUS: "how a leg ended",
    Gap.KIND: "whether a person or an IVR answered",
    Gap.DIRECTION: "whether the number is an extension",
    Gap.EVENTS: "its later events: there were too many",
    Gap.LATE: "whether this is final: a callback arrived after the end",
}


class Party(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One side of a call. Fields that the PBX did not send are None."""

    number: str | None = None
    name: str | None = None
    extension: str | None = None  # extended form, such as 0003*210
    did: str | None = None  # the public number that was called
    e164: str | None = None  # the number as +442079460100, if its country is known


class Leg(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One extension's part in a call.

    Attributes:
        kind: None if unknown; then the extension counts as a phone, unless the call shows that it
            is not.
        direction: `in` if the extension was called, `out` if it called.
        rang, answered, ended: None if it did not happen or no callback reported it.
        status: how it ended: the PBX's CallStatus, verbatim.
        id: the PBX's own id of the leg, if it has one (Telphin's SubCallID).
    """

    extension: str
    kind: Kind | None = None
    direction: Literal["in", "out"] | None = None
    rang: datetime | None = None
    answered: datetime | None = None
    ended: datetime | None = None
    status: str | None = None
    id: str | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One call, as far as it is known. All times are UTC.

    Attributes:
        pbx, id: the PBX's name and its CallID; together they identify the call.
        direction: `in` from outside, `out` to outside, `internal` between extensions.
        caller: in an outgoing or internal call, the extension.
        called: what was dialled; `extension` is the first one that rang (in an incoming or
            internal call).
        started: the time of the first event.
        answered: when the first person answered, if known.
        ended: when the last leg ended, or of its last event; None while the call goes on.
        answered_by: the extension that answered first (in an outgoing call, the one that called).
        ring_seconds: from the start to the answer, or to the end; None if unknown.
        talk_seconds: time in which anyone was talking, without the pauses between legs; None if
            the call was answered and the times are unknown.
        outcome: None while the call goes on.
        gaps: what is unknown; empty if all callbacks came.
        left_out: number of its events that are not in it, because it had too many.
        closed_by: what ended it: the last `hangup`, `silence` (no end came) or the PBX's call
            `records`.
        recovered: its callbacks never came; all is from the PBX's call records.
        recording: the PBX's id of its recording, if it sends one.
        legs: in the order in which they began.
    """

    id: str
    pbx: str
    direction: Direction
    caller: Party
    called: Party
    started: datetime
    answered: datetime | None = None
    ended: datetime | None = None
    answered_by: str | None = None
    ring_seconds: float | None = 0.0
    talk_seconds: float | None = 0.0
    outcome: Outcome | None = None
    gaps: tuple[Gap, ...] = ()
    closed_by: Literal["hangup", "silence", "records"] | None = None
    recovered: bool = False
    recording: str | None = None
    left_out: int = 0
    legs: tuple[Leg, ...] = ()

    @property
    def complete(self) -> bool:
        """Return whether everything about it is known."""
        return not self.gaps

    @property
    def extensions(self) -> tuple[str, ...]:
        """The extensions of its legs, each once."""
        return tuple(dict.fromkeys(leg.extension for leg in self.legs))

    def as_dict(self) -> dict[str, Any]:
        """The call as plain JSON values."""
        # Not to_builtins: it would leave tuples.
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Call":
        """The inverse of `as_dict`. Raises `msgspec.ValidationError` for anything else."""
        return msgspec.convert(plain, cls)
