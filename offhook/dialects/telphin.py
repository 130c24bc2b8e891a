"""Telphin's callbacks, which Ringme sends too: like VoipNow's, with the differences below.

All event types share one URL; a parameter names the type. Sources: ucom4b's and Ringme's pages
"Extension number events", and callbacks that Telphin's users recorded.
"""

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from offhook.dialects import voipnow
from offhook.errors import RefusedCallback
from offhook.event import CallEvent, EventType
from unifiedapi.callback import known_parameters

TELPHIN = "telphin"  # the dialect's name; in a callback URL it replaces the event type

_TYPES = {each.value: each for each in (EventType.DIAL_IN, EventType.DIAL_OUT, EventType.HANGUP)}
_ANSWERS = {"in": EventType.ANSWER_IN, "out": EventType.ANSWER_OUT}
_BRIDGED = {"yes": True, "no": False}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AHEAD = timedelta(days=1)  # by which a PBX's clock may be ahead of ours


def read_event(
    *,
    pbx: str,
    extension: str,
    type: str = TELPHIN,  # noqa: A002 - as in `voipnow.read_event`
    parameters: dict[str, str],
    received: datetime | None = None,
) -> CallEvent:
    """The call event that a callback's parameters describe.

    Raises:
        RefusedCallback: there is no CallID, or no event type of a call: messages have others.
    """
    known = known_parameters(parameters)
    event = voipnow.read_event(
        pbx=pbx,
        extension=extension,
        type=_event_type(known),
        parameters=parameters,
        received=received,
    )
    # After a transfer CallerIDNum is who transferred the call; RemoteNumber is the caller.
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
        occurred=_moment(known.get("EventTime", ""), event.received),
        recording=known.get("RecID"),
        bridged=_BRIDGED.get(known.get("Bridged", "").lower()),
        talked=_talked(known.get("Duration", "")),
    )


def _event_type(known: dict[str, str]) -> EventType:
    name = known.get("EventType", "").lower()
    flow = known.get("CallFlow", "").lower()
    found = _ANSWERS.get(flow) if name == "answer" else _TYPES.get(name)
    if found is None:
        raise RefusedCallback(
            400,
            "unknown_event_type",
            "EventType must be dial-in, dial-out, hangup, or answer with a CallFlow of in or out.",
        )
    return found


def _without_domain(extension: str | None) -> str | None:
    """`0003*210` of `0003*210@sip.example.com`."""
    return extension and extension.partition("@")[0]


def _moment(microseconds: str, received: datetime) -> datetime | None:
    """The moment so long after 1970; None if it cannot be right, since nothing depends on it."""
    try:
        moment = _EPOCH + timedelta(microseconds=int(microseconds))
    except (ValueError, OverflowError):
        return None
    return moment if _EPOCH <= moment <= received + _AHEAD else None


def _talked(microseconds: str) -> int | None:
    """The microseconds of talk; None if that cannot be read, or is longer than a year."""
    digits = microseconds.strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 14 else None
