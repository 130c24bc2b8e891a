"""`CallEvent`: an accepted callback, and the form in which it is stored."""

import secrets
import time
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from offhook.call import Call, Direction, Party


class EventType(StrEnum):
    """The event types, by the names Offhook uses on screen, in URLs and in logs.

    The first five are callbacks. The next five are about whole calls and follow from callbacks. The
    others are about extensions, a day or Offhook's own trouble, or internal.
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
    CALL_CORRECTED = "call-corrected"  # more became known after call-ended
    CALL_RECORD = "call-record"  # from the PBX's own call records
    EXTENSION_SILENT = "extension-silent"
    PHONE_UNREGISTERED = "phone-unregistered"
    PHONE_REGISTERED = "phone-registered"
    DAILY_SUMMARY = "daily-summary"
    HANDLER_FAILING = "handler-failing"
    HANDLER_RECOVERED = "handler-recovered"
    DEAD_LETTER = "dead-letter"
    JOURNAL_USED = "journal-used"
    INBOX_FILLING = "inbox-filling"
    REGISTRATION_LOST = "registration-lost"


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
TROUBLE = (
    EventType.HANDLER_FAILING,
    EventType.HANDLER_RECOVERED,
    EventType.DEAD_LETTER,
    EventType.JOURNAL_USED,
    EventType.INBOX_FILLING,
    EventType.REGISTRATION_LOST,
)
GROUPS: dict[str, tuple[EventType, ...]] = {
    "raw": CALLBACKS,
    "calls": CALLS,
    "extensions": EXTENSIONS,
    "summaries": (EventType.DAILY_SUMMARY,),
    "trouble": TROUBLE,
}


# `gc=False`, here and in all parts of events and calls: immutable values read from JSON cannot form
# a cycle, so the garbage collector need not visit the hundreds in memory.
class CallEvent(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="v", tag=1, gc=False
):
    """One accepted callback. Immutable; `id` is the same on every attempt to deliver it.

    Attributes:
        pbx, extension: from the callback's URL: where the phone call event is registered. In an
            event about a whole call, the extension that answered, or the first that rang.
        status: the PBX's CallStatus, verbatim.
        parameters: every parameter as sent, unknown ones too.
        tenant: whose extension it is; empty: the operator's.
        undecoded: those that were not UTF-8, as sent: bytes, percent-encoded. In `parameters` they
            are decoded as the setting `encoding` of the PBX says.
        leg, occurred, recording, bridged, talked: only from some PBXs, otherwise None: the leg's
            id, the time on the PBX, the recording's id, whether a queue or an IVR connected the
            call to a person, and the microseconds of talk (in a hangup).
        summary: the call, in an event about a whole call.
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
    talked: int | None = None
    summary: Call | None = None
    undecoded: dict[str, str] | None = None
    tenant: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The event as JSON values: the form that Redis stores and handlers send."""
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
        """The event's extension, or all extensions of its call."""
        return self.summary.extensions if self.summary else (self.extension,)

    @property
    def call(self) -> str:
        """The call's name across tenants and PBXs. Events that share it are delivered in order."""
        return call_name(self.pbx, self.call_id, self.tenant)


def call_name(pbx: str, call_id: str, tenant: str = "") -> str:
    """The name of a call across PBXs, `PBX/CALLID`; of a tenant's, `TENANT:PBX/CALLID`."""
    return f"{tenant}:{pbx}/{call_id}" if tenant else f"{pbx}/{call_id}"


def tenant_of(name: str) -> str:
    """The tenant of the call of this name; empty: the operator."""
    tenant, colon, _ = name.partition("/")[0].partition(":")
    return tenant if colon else ""


to_stored = msgspec.json.Encoder().encode
from_stored = msgspec.json.Decoder(CallEvent).decode

_latest = 0  # the first 64 bits of the last id


def new_event_id() -> str:
    """A 128-bit id in hex that sorts by time: 48 bits of milliseconds, 16 to count, 64 random.

    The ids of a process sort in order even if the clock is set back.
    """
    global _latest
    _latest = max(_latest + 1, time.time_ns() // 1_000_000 << 16)
    return f"{_latest:016x}{secrets.token_hex(8)}"
