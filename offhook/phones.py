"""Is a phone registered? What the PBX's presence says, look by look, and what is told of it. Pure.

Phones lose their registration for a moment now and then, and PBXs are slow to notice either: a
change counts when two looks in a row have seen it.
"""

from datetime import datetime
from hashlib import blake2b

import msgspec

from offhook.call import Party
from offhook.event import CallEvent, EventType
from unifiedapi.resources import PhoneRegistration, Presence, RegistrationStatus

_THERE = (RegistrationStatus.REGISTERED, RegistrationStatus.NOT_NECESSARY)
_GONE = (RegistrationStatus.NOT_REGISTERED, RegistrationStatus.EXPIRED)


class Phone(msgspec.Struct, frozen=True, array_like=True):
    """What was seen of an extension's phones.

    Attributes:
        registered: as it was told, or was at the first look.
        changed: when the last look found the opposite; None: it did not.
    """

    registered: bool
    changed: datetime | None = None


def is_registered(presence: Presence) -> bool | None:
    """Is one of the extension's phones registered? None: the PBX does not know."""
    states = [phone.registration for phone in presence.registration]
    if any(state in _THERE for state in states):
        return True
    return False if all(state in _GONE for state in states) else None


def look(
    before: Phone | None, presence: Presence, pbx: str, now: datetime
) -> tuple[Phone | None, CallEvent | None]:
    """What is known after a look, and what is to be told.

    Args:
        before: what was known; None at the first look, after which nothing is told.
    """
    registered = is_registered(presence)
    if registered is None:
        return before, None
    if before is None or registered == before.registered:
        return Phone(registered), None
    if before.changed is None:
        return Phone(before.registered, now), None
    return Phone(registered), _event(presence, pbx, before.changed, now, registered=registered)


def _event(
    presence: Presence, pbx: str, changed: datetime, now: datetime, *, registered: bool
) -> CallEvent:
    type_ = EventType.PHONE_REGISTERED if registered else EventType.PHONE_UNREGISTERED
    return CallEvent(
        id=_event_id(pbx, presence.extension, type_, changed),
        pbx=pbx,
        extension=presence.extension,
        type=type_,
        call_id=f"extension {presence.extension}",
        direction=None,
        caller=Party(),
        called=Party(),
        status=None,
        received=now,
        occurred=changed,
        parameters=_parameters(presence, registered=registered),
    )


def _parameters(presence: Presence, *, registered: bool) -> dict[str, str]:
    """What the PBX says of the phone that it is about: one that is registered, if any is."""
    wanted = _THERE if registered else _GONE
    phones = [phone for phone in presence.registration if phone.registration in wanted]
    phone = phones[0] if phones else PhoneRegistration()
    said = {
        "status": phone.registration.name.lower().replace("_", " ") if phones else None,
        "agent": phone.agent,
        "expire": phone.expire.isoformat() if phone.expire else None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _event_id(pbx: str, extension: str, type_: EventType, changed: datetime) -> str:
    """Shaped as `new_event_id` shapes it; the same whenever the same thing is told."""
    at = int(changed.timestamp() * 1000)
    name = f"{pbx}/{extension}/{type_}/{at}".encode()
    return f"{at:012x}{blake2b(name, digest_size=10).hexdigest()}"
