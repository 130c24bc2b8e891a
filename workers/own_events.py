"""Call events that Offhook makes itself: about an extension or a day, or from a PBX's record."""

from datetime import UTC, datetime
from hashlib import blake2b

from offhook.call import Party
from offhook.event import CallEvent, EventType


def stable_id(milliseconds: int, name: str) -> str:
    """Return an event id of the form of `new_event_id`, the same for the same arguments.

    Args:
        milliseconds: when the event happened, since 1970. Ids sort by it.
    """
    return f"{milliseconds:012x}{blake2b(name.encode(), digest_size=10).hexdigest()}"


def own_event(
    event_id: str,
    event_type: EventType,
    pbx: str,
    about: str,
    parameters: dict[str, str],
    *,
    received: datetime,
    extension: str = "",
    occurred: datetime | None = None,
    tenant: str = "",
) -> CallEvent:
    """Return an event that belongs to no call.

    Args:
        about: takes the place of the call's id, such as `extension 0003*210`.
    """
    return CallEvent(
        id=event_id,
        pbx=pbx,
        extension=extension,
        type=event_type,
        call_id=about,
        direction=None,
        caller=Party(),
        called=Party(),
        status=None,
        received=received,
        occurred=occurred and occurred.astimezone(UTC),
        parameters=parameters,
        tenant=tenant,
    )
