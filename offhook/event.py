"""`CallEvent`: what a callback says, once accepted. The only place that says how it is stored."""

import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from offhook.call import Call, Direction, Party
from unifiedapi.callback import known_parameters


class EventType(StrEnum):
    """The event types, by the names Offhook uses on screen, in URLs and in logs.

    The first five are callbacks; the next five tell of whole calls and are made from them; the
    others tell of extensions, or of a day, or are for Offhook alone.
    """

    DIAL_IN = "dial-in"
    DIAL_OUT = "dial-out"
    HANGUP = "hangup"
    ANSWER_IN = "answer-in"
    ANSWER_OUT = "answer-out"
    CALL_STARTED = "call-started"
    CALL_ANSWERED = "call-answered"
    CALL_ENDED = "call-ended"
    MISSED_CALL = "missed-call"
    CALL_CORRECTED = "call-corrected"  # what call-ended said was not all: here is the rest
    CALL_RECORD = "call-record"  # what the PBX's own records say of a call
    EXTENSION_SILENT = "extension-silent"
    PHONE_UNREGISTERED = "phone-unregistered"
    PHONE_REGISTERED = "phone-registered"
    DAILY_SUMMARY = "daily-summary"


CALLBACKS = (
    EventType.DIAL_IN,
    EventType.DIAL_OUT,
    EventType.HANGUP,
    EventType.ANSWER_IN,
    EventType.ANSWER_OUT,
)
CALLS = (
    EventType.CALL_STARTED,
    EventType.CALL_ANSWERED,
    EventType.CALL_ENDED,
    EventType.MISSED_CALL,
    EventType.CALL_CORRECTED,
)
EXTENSIONS = (
    EventType.EXTENSION_SILENT,
    EventType.PHONE_UNREGISTERED,
    EventType.PHONE_REGISTERED,
)
GROUPS: dict[str, tuple[EventType, ...]] = {
    "raw": CALLBACKS,
    "calls": CALLS,
    "extensions": EXTENSIONS,
    "summaries": (EventType.DAILY_SUMMARY,),
}

_FLOWS: dict[str, Direction] = {"IN": "in", "OUT": "out"}
_DIRECTIONS: dict[EventType, Direction] = {
    EventType.DIAL_IN: "in",
    EventType.ANSWER_IN: "in",
    EventType.DIAL_OUT: "out",
    EventType.ANSWER_OUT: "out",
}


# `gc=False`, here and of all that events and calls are made of: no cycle can go through what is
# immutable and came as JSON, and the garbage collector need not look at the hundreds in flight.
class CallEvent(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="v", tag=1, gc=False
):
    """One accepted callback. Immutable; `id` is the same on every attempt to deliver it.

    `extension` and `pbx` come from the callback's URL: the extension that the phone call event is
    registered on. `status` is the PBX's CallStatus, verbatim. `parameters` holds every parameter
    as it was sent, unknown ones too. Some PBXs say more, and it is None with the others: the
    `leg`'s id, when it `occurred`, the `recording`'s id, and whether what an IVR or a queue had
    was `bridged` to a person. An event about a whole call has its `summary`; its `extension` is
    the one that answered, or the first that rang.
    """

    id: str
    pbx: str
    extension: str
    type: EventType
    call_id: str
    direction: Direction | None
    caller: Party
    called: Party
    status: str | None
    received: datetime  # UTC, microseconds
    parameters: dict[str, str]
    leg: str | None = None
    occurred: datetime | None = None
    recording: str | None = None
    bridged: bool | None = None
    summary: Call | None = None

    def as_dict(self) -> dict[str, Any]:
        """The event as plain JSON values, as handlers send it and Redis keeps it."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        if self.summary is not None:
            plain["summary"] = self.summary.as_dict()
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "CallEvent":
        """The inverse of `as_dict`. Raises `msgspec.ValidationError` for anything else."""
        return msgspec.convert(plain, cls)

    @property
    def extensions(self) -> tuple[str, ...]:
        """The extensions that it is about: its own, or all that have a part in its call."""
        return self.summary.extensions if self.summary else (self.extension,)

    @property
    def call(self) -> str:
        """What names the call across PBXs: events that share it are delivered in order."""
        return f"{self.pbx}/{self.call_id}"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(CallEvent)
to_stored = _encoder.encode
from_stored = _decoder.decode


_latest = 0  # what the last id of this process begins with


def new_event_id() -> str:
    """A 128-bit id that sorts by time (48 bits of milliseconds, 16 to count, 64 random), in hex.

    Those of a process sort in their order, even if the clock is set back meanwhile.
    """
    global _latest
    _latest = max(_latest + 1, time.time_ns() // 1_000_000 << 16)
    return f"{_latest:016x}{secrets.token_hex(8)}"


def read_event(
    *,
    pbx: str,
    extension: str,
    type: EventType,  # noqa: A002 - the field's name
    parameters: dict[str, str],
    received: datetime | None = None,
) -> CallEvent | None:
    """The call event that these parameters of a callback describe, or None without a CallID."""
    known = known_parameters(parameters)
    call_id = known.get("CallID")
    if call_id is None:
        return None
    flow = known.get("CallFlow", "").upper()
    return CallEvent(
        id=new_event_id(),
        pbx=pbx,
        extension=extension,
        type=type,
        call_id=call_id,
        direction=_FLOWS.get(flow) or _DIRECTIONS.get(type),
        caller=Party(
            number=known.get("CallerIDNum"),
            name=known.get("CallerIDName"),
            extension=known.get("CallerExtension"),
        ),
        called=Party(
            number=known.get("CalledNumber"),
            extension=known.get("CalledExtension"),
            did=known.get("CalledDID"),
        ),
        status=known.get("CallStatus"),
        received=received or datetime.now(UTC),
        parameters=parameters,
    )
