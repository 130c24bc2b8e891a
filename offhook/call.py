"""`Call`: who called whom, who answered, how long it rang and lasted, and how it ended.

VoipNow sends none of that; it is folded from the events of a call.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec

Direction = Literal["in", "out", "internal"]


class Kind(StrEnum):
    """What an extension is. A queue and an IVR answer by themselves, which tells of nobody."""

    PHONE = "phone"
    QUEUE = "queue"
    IVR = "ivr"
    CONFERENCE = "conference"


class Outcome(StrEnum):
    """How a call ended. The table in `docs/calls.md` says how it is found."""

    ANSWERED = "answered"
    MISSED = "missed"
    BUSY = "busy"
    CANCELLED = "cancelled"
    UNREACHABLE = "unreachable"
    FAILED = "failed"


class Gap(StrEnum):
    """What is not known of a call, because no callback said it."""

    DIAL = "dial"  # a leg without its dial-in or dial-out: since when it rang
    ANSWER = "answer"  # an answered leg without its answer: since when they talked
    HANGUP = "hangup"  # a leg without its hangup: until when, and how it ended
    STATUS = "status"  # a hangup that says nothing about how the leg ended
    LATE = "late"  # something came after the call was taken for ended


class Party(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One side of a call. What the PBX did not say is None."""

    number: str | None = None
    name: str | None = None
    extension: str | None = None  # extended form, such as 0003*210
    did: str | None = None  # the public number that was called
    e164: str | None = None  # the number as +442079460100, where that can be known


class Leg(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One extension's part in a call.

    Attributes:
        extension: whose.
        kind: what that is; None when nobody has said so, and then it counts as a phone.
        direction: `in` when the extension was called, `out` when it called.
        rang, answered, ended: when; None for what did not happen or was not told.
        status: how it ended, the PBX's CallStatus, verbatim.
        id: the PBX's own name for the leg, where it has one (Telphin's SubCallID).
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
    """One call, as far as it is known. All moments are UTC.

    Attributes:
        pbx, id: the PBX's name and its CallID; together they name the call.
        direction: `in` from outside, `out` to outside, `internal` between extensions.
        caller: who called; of an outgoing or internal call, the extension.
        called: what was dialled; `extension` is the first one that rang (of an incoming or
            internal call).
        started: the first event.
        answered: when the first person answered, if one did and it was told.
        ended: when the last leg ended, or was heard of last; None while the call goes on.
        answered_by: the extension that answered first (of an outgoing call, the one that called).
        ring_seconds: from the start until it was answered, or until it ended; None when these
            moments are not known.
        talk_seconds: how long somebody was talking, holes between legs left out; None when the
            call was answered and the moments are not known.
        outcome: None while the call goes on.
        gaps: what is not known; empty for a call of which everything was told.
        closed_by: what ended it: the last `hangup`, `silence` (the end never came) or the PBX's
            own `records`.
        recovered: its callbacks never came; it is known from the PBX's records alone.
        recording: the PBX's id of its recording, where it says one.
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
    legs: tuple[Leg, ...] = ()

    @property
    def complete(self) -> bool:
        """Is everything known of it?"""
        return not self.gaps

    @property
    def extensions(self) -> tuple[str, ...]:
        """The extensions that have a part in it, each once."""
        return tuple(dict.fromkeys(leg.extension for leg in self.legs))

    def as_dict(self) -> dict[str, Any]:
        """The call as plain JSON values."""
        # Not to_builtins: it would leave tuples, which JSON does not have.
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Call":
        """The inverse of `as_dict`. Raises `msgspec.ValidationError` for anything else."""
        return msgspec.convert(plain, cls)
