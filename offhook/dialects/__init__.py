"""Dialects: the forms in which PBXs send callbacks. The event type in a URL selects the dialect."""

from collections.abc import Callable

from offhook.dialects import telphin, voipnow
from offhook.errors import RefusedCallback
from offhook.event import CALLBACKS, CallEvent

_BY_EVENT_TYPE: dict[str, Callable[..., CallEvent]] = {
    **{event_type.value: voipnow.read_event for event_type in CALLBACKS},
    telphin.TELPHIN: telphin.read_event,
}


def dialect(event_type: str) -> Callable[..., CallEvent]:
    """The function that reads callbacks with this event type in their URL.

    See `offhook.dialects.voipnow.read_event` for its arguments.

    Raises:
        RefusedCallback: there is no such event type.
    """
    if event_type not in _BY_EVENT_TYPE:
        known = ", ".join(_BY_EVENT_TYPE)
        raise RefusedCallback(400, "unknown_event_type", f"The URL must name one of: {known}.")
    return _BY_EVENT_TYPE[event_type]
