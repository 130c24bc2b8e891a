"""`watch_phones`: which phones are registered, one request for each PBX, and an event for a change.

Phones lose their registration for a moment now and then, and PBXs are slow to notice either: a
change counts when two looks in a row have seen it.

offhook:phones:PBX   hash: EXTENSION -> what was seen of its phones; expires
"""

import asyncio
import logging
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import RedisError

from offhook.announcements import announce
from offhook.call import Party
from offhook.connection import connect, connect_rq
from offhook.errors import OffhookError
from offhook.event import CallEvent, EventType
from offhook.extensions import Extensions
from offhook.inbox import Inbox, keys
from offhook.provisioning.api import open_api, sentence
from offhook.settings import Settings, load_settings
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import UnifiedApiError
from unifiedapi.resources import PhoneRegistration, Presence, RegistrationStatus
from workers import process

log = logging.getLogger("offhook.presence")

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


_FORGET = 3600  # seconds without a look, after which the next one is a first one
_REPEAT = 86_400.0  # seconds; a job that was killed tells again what it had told

_phone = msgspec.json.Decoder(Phone).decode


def watch_phones() -> None:
    """The RQ job."""
    process.die_with_parent()
    asyncio.run(watch_all(load_settings()))


async def watch_all(settings: Settings) -> None:
    """Look at the phones of every PBX whose API is spoken."""
    redis, rq = connect(settings.redis_url), connect_rq(settings.redis_url)
    inbox = Inbox(redis, settings.partitions, settings.durability)
    try:
        for pbx, configured in settings.pbx.items():
            if configured.host is None:
                continue
            try:
                async with open_api(settings, pbx) as api:
                    await watch(settings, pbx, api, inbox, rq)
            except (UnifiedApiError, OffhookError, RedisError) as error:
                log.error("the phones of %s were not looked at: %s", pbx, sentence(error))
    finally:
        await redis.aclose()
        rq.close()


async def watch(settings: Settings, pbx: str, api: UnifiedApi, inbox: Inbox, rq: Redis) -> None:
    """Look at the phones of one PBX, those of extensions that are set up.

    Raises:
        UnifiedApiError: the PBX does not tell.
        InboxUnavailable: what is to be told is told at the next look.
    """
    mine = {number for name, number in await Extensions(inbox.redis).all() if name == pbx}
    if not mine:
        return
    key = keys.phones(pbx)
    stored: Any = await inbox.redis.hgetall(key)
    before = {name.decode(): _phone(value) for name, value in stored.items()}
    now = datetime.now(UTC)
    known: dict[str, Phone] = {number: before[number] for number in mine & before.keys()}
    events: list[CallEvent] = []
    async for presence in api.presence.list(user=settings.pbx[pbx].user):
        number = presence.extension
        if number not in mine:
            continue
        phone, event = look(before.get(number), presence, pbx, now)
        if phone is not None:
            known[number] = phone
        if event is not None:
            events.append(event)
    await announce(settings, inbox, rq, events, window=_REPEAT)
    async with inbox.redis.pipeline(transaction=True) as pipeline:
        pipeline.delete(key)
        if known:
            packed: dict[Any, Any] = {n: msgspec.json.encode(phone) for n, phone in known.items()}
            pipeline.hset(key, mapping=packed)
            pipeline.expire(key, _FORGET)
        await pipeline.execute()
