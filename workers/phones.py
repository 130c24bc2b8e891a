"""`watch_phones`: announces when an extension's phones register or unregister.

One API request per PBX lists all phones. They are kept, so that a short number that one of them
dials is recognized as an extension. A change counts when two checks in a row see it, because
phones lose their registration for a moment now and then.

offhook:phones:PBX   hash: EXTENSION -> a `RegistrationState`; expires
offhook:registered   hash: PBX/TENANT -> how many extensions have a registered phone, or none
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace
from redis.exceptions import RedisError

from offhook.announcements import announce
from offhook.connection import opened
from offhook.errors import OffhookError
from offhook.event import CallEvent, EventType
from offhook.extensions import Extensions
from offhook.inbox import Inbox, keys
from offhook.operations.phone_states import RegistrationState, phone_states
from offhook.provisioning.api import open_api, sentence
from offhook.settings import Settings
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import UnifiedApiError
from unifiedapi.resources import PhoneRegistration, Presence, RegistrationStatus
from workers import process, version
from workers.own_events import own_event, stable_id
from workers.pbxs import for_each_pbx

log = logging.getLogger("offhook.phones")

_REGISTERED = (RegistrationStatus.REGISTERED, RegistrationStatus.NOT_NECESSARY)
_UNREGISTERED = (RegistrationStatus.NOT_REGISTERED, RegistrationStatus.EXPIRED)
_FORGET = 3600  # seconds without a check before the next one counts as the first
_REPEAT = 86_400.0  # seconds in which a killed job may announce the same change again


def is_registered(presence: Presence) -> bool | None:
    """Return whether any of the extension's phones is registered; None if the PBX is unsure."""
    states = [phone.registration for phone in presence.registration]
    if any(state in _REGISTERED for state in states):
        return True
    return False if all(state in _UNREGISTERED for state in states) else None


def check(
    before: RegistrationState | None, presence: Presence, pbx: str, now: datetime
) -> tuple[RegistrationState | None, CallEvent | None]:
    """Return the new state, and the event to announce if there is one.

    Args:
        before: the previous state; None at the first check, which announces nothing.
    """
    registered = is_registered(presence)
    if registered is None:
        return before, None
    if before is None or registered == before.registered:
        return RegistrationState(registered), None
    if before.changed is None:
        return RegistrationState(before.registered, now), None
    event = _event(presence, pbx, before.changed, now, registered=registered)
    return RegistrationState(registered), event


def _event(
    presence: Presence, pbx: str, changed: datetime, now: datetime, *, registered: bool
) -> CallEvent:
    extension = presence.extension
    type_ = EventType.PHONE_REGISTERED if registered else EventType.PHONE_UNREGISTERED
    at = int(changed.timestamp() * 1000)
    return own_event(
        stable_id(at, f"{pbx}/{extension}/{type_}/{at}"),
        type_,
        pbx,
        f"extension {extension}",
        _parameters(presence, registered=registered),
        extension=extension,
        received=now,
        occurred=changed,
    )


def _parameters(presence: Presence, *, registered: bool) -> dict[str, str]:
    """Describe the phone that the event is about: the first one in the new state, if any."""
    wanted = _REGISTERED if registered else _UNREGISTERED
    phones = [phone for phone in presence.registration if phone.registration in wanted]
    phone = phones[0] if phones else PhoneRegistration()
    said = {
        "status": phone.registration.name.lower().replace("_", " ") if phones else None,
        "agent": phone.agent,
        "expire": phone.expire.isoformat() if phone.expire else None,
    }
    return {name: value for name, value in said.items() if value is not None}


def watch_phones() -> None:
    """The RQ job."""
    process.die_with_parent()
    asyncio.run(watch_all(version.settings()))


async def watch_all(settings: Settings) -> None:
    """Check the phones of every PBX that has an API configured."""
    async with opened(settings) as (inbox, _):

        async def look(tenant: str, pbx: str) -> None:
            try:
                async with open_api(settings.of(tenant), pbx) as api:
                    await watch(settings, pbx, api, inbox, tenant)
            except (UnifiedApiError, OffhookError, RedisError) as error:
                log.error("cannot check the phones of %s: %s", pbx, sentence(error))

        await for_each_pbx(settings, "watch_phones", look)


async def watch(
    settings: Settings, pbx: str, api: UnifiedApi, inbox: Inbox, access: str = ""
) -> None:
    """Check the phones of one PBX whose extensions are set up.

    Args:
        settings: the operator's.
        access: the tenant whose API this is.

    Raises:
        UnifiedApiError: the PBX does not list its phones.
        InboxUnavailable: the next check announces the same changes.
    """
    extensions = Extensions(inbox.redis)
    mine = {
        number
        for name, number in await extensions.names()
        if name == pbx and settings.access_of(pbx, number) == access
    }
    if not mine:
        return
    key = keys.phones(pbx, access)
    before = await phone_states(inbox.redis, pbx, access)
    now = datetime.now(UTC)
    known = {number: before[number] for number in mine & before.keys()}
    events: list[CallEvent] = []
    listed: list[str] = []
    async for presence in api.presence.list(user=settings.of(access).pbx[pbx].user):
        number = presence.extension
        listed.append(number)
        if number not in mine:
            continue
        state, event = check(before.get(number), presence, pbx, now)
        if state is not None:
            known[number] = state
        if event is not None:
            events.append(replace(event, tenant=settings.tenant_of(pbx, number)))
    await extensions.add_phones(pbx, listed)
    await announce(settings, inbox, events, window=_REPEAT)
    async with inbox.redis.pipeline(transaction=True) as pipeline:
        pipeline.delete(key)
        if known:
            packed: dict[Any, Any] = {n: msgspec.json.encode(state) for n, state in known.items()}
            pipeline.hset(key, mapping=packed)
            pipeline.expire(key, _FORGET)
        await pipeline.execute()
    registered = sum(state.registered for state in known.values())
    counts: Any = msgspec.json.encode([registered, len(known) - registered])
    await inbox.redis.hset(keys.REGISTERED, f"{pbx}/{access}", counts)
