"""`CallEvent`: what a callback says, once accepted. The only place that says how it is stored."""

import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec

from unifiedapi.callback import known_parameters


class EventType(StrEnum):
    """The five phone call events, by the names Offhook uses on screen, in URLs and in logs."""

    DIAL_IN = "dial-in"
    DIAL_OUT = "dial-out"
    HANGUP = "hangup"
    ANSWER_IN = "answer-in"
    ANSWER_OUT = "answer-out"


Direction = Literal["in", "out"]

_FLOWS: dict[str, Direction] = {"IN": "in", "OUT": "out"}
_DIRECTIONS: dict[EventType, Direction] = {
    EventType.DIAL_IN: "in",
    EventType.ANSWER_IN: "in",
    EventType.DIAL_OUT: "out",
    EventType.ANSWER_OUT: "out",
}


class Party(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One side of a call. What the PBX did not say is None."""

    number: str | None = None
    name: str | None = None
    extension: str | None = None  # extended form, such as 0003*210
    did: str | None = None  # the public number that was called


class CallEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="v", tag=1):
    """One accepted callback. Immutable; `id` is the same on every attempt to deliver it.

    `extension` and `pbx` come from the callback's URL: the extension that the phone call event is
    registered on. `status` is the PBX's CallStatus, verbatim. `parameters` holds every parameter
    as it was sent, unknown ones too.
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

    def as_dict(self) -> dict[str, Any]:
        """The event as plain JSON values, as handlers send it and Redis keeps it."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "CallEvent":
        """The inverse of `as_dict`. Raises `msgspec.ValidationError` for anything else."""
        return msgspec.convert(plain, cls)

    @property
    def call(self) -> str:
        """What names the call across PBXs: events that share it are delivered in order."""
        return f"{self.pbx}/{self.call_id}"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(CallEvent)
to_stored = _encoder.encode
from_stored = _decoder.decode


def new_event_id() -> str:
    """A 128-bit id that sorts by time (48 bits of milliseconds, 80 random ones), in hex."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


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
