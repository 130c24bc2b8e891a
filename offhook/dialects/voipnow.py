"""VoipNow's callbacks. The names of their parameters are in `unifiedapi.callback`."""

from datetime import UTC, datetime

from offhook.call import Direction, Party
from offhook.errors import RefusedCallback
from offhook.event import CallEvent, EventType, new_event_id
from unifiedapi.callback import known_parameters

_TYPES = {event_type.value: event_type for event_type in EventType}  # faster than EventType(...)
_FLOWS: dict[str, Direction] = {"IN": "in", "OUT": "out"}
_DIRECTIONS: dict[EventType, Direction] = {
    EventType.DIAL_IN: "in",
    EventType.ANSWER_IN: "in",
    EventType.DIAL_OUT: "out",
    EventType.ANSWER_OUT: "out",
}


def read_event(
    *,
    pbx: str,
    extension: str,
    type: str,  # noqa: A002 - the field's name
    parameters: dict[str, str],
    received: datetime | None = None,
) -> CallEvent:
    """The call event that a callback's parameters describe.

    Args:
        type: the event type in the callback's URL.
        received: now if not given.

    Raises:
        RefusedCallback: there is no CallID.
    """
    known = known_parameters(parameters)
    call_id = known.get("CallID")
    if call_id is None:
        raise RefusedCallback(400, "missing_call_id", "The callback has no CallID.")
    event_type = _TYPES[type]
    flow = known.get("CallFlow", "").upper()
    return CallEvent(
        id=new_event_id(),
        pbx=pbx,
        extension=extension,
        type=event_type,
        call_id=call_id,
        direction=_FLOWS.get(flow) or _DIRECTIONS.get(event_type),
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
