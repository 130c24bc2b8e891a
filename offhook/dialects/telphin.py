"""Telphin's dialect of VoipNow's callbacks: what is read in another way. Ringme speaks it, too.

One URL takes all event types: a parameter says which it is. Sources: ucom4b's and Ringme's pages
"Extension number events", and callbacks that users of Telphin recorded.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from offhook import event as voipnow
from offhook.event import CallEvent, EventType
from unifiedapi.callback import known_parameters

TELPHIN = "telphin"  # the dialect; in a callback URL it stands in the place of the event type

_TYPES = {
    "dial-in": EventType.DIAL_IN,
    "dial-out": EventType.DIAL_OUT,
    "hangup": EventType.HANGUP,
}
_ANSWERS = {"in": EventType.ANSWER_IN, "out": EventType.ANSWER_OUT}
_BRIDGED = {"yes": True, "no": False}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def event_type(parameters: Mapping[str, str]) -> EventType | None:
    """The type of the call event; None when it is none, as of a message, or does not say enough."""
    known = known_parameters(parameters)
    said = known.get("EventType", "").lower()
    if said == "answer":
        return _ANSWERS.get(known.get("CallFlow", "").lower())
    return _TYPES.get(said)


def read_event(
    *,
    pbx: str,
    extension: str,
    type: EventType,  # noqa: A002 - the field's name
    parameters: dict[str, str],
    received: datetime | None = None,
) -> CallEvent | None:
    """As `offhook.event.read_event`, from parameters in this dialect."""
    event = voipnow.read_event(
        pbx=pbx, extension=extension, type=type, parameters=parameters, received=received
    )
    if event is None:
        return None
    known = known_parameters(parameters)
    # After a transfer CallerIDNum is who transferred the call, and this is who calls.
    remote = known.get("RemoteNumber") if event.direction == "in" else None
    return replace(
        event,
        caller=replace(
            event.caller,
            number=remote or event.caller.number,
            extension=_without_domain(event.caller.extension),
        ),
        called=replace(event.called, extension=_without_domain(event.called.extension)),
        leg=known.get("SubCallID"),
        occurred=_moment(known.get("EventTime", "")),
        recording=known.get("RecID"),
        bridged=_BRIDGED.get(known.get("Bridged", "").lower()),
    )


def _without_domain(extension: str | None) -> str | None:
    """`0003*210` of `0003*210@sip.example.com`."""
    return extension and extension.partition("@")[0]


def _moment(microseconds: str) -> datetime | None:
    """When it happened, counted from 1970; None when that cannot be read: nothing hangs on it."""
    try:
        return _EPOCH + timedelta(microseconds=int(microseconds))
    except (ValueError, OverflowError):
        return None
