"""`watch_phones`: look which phones are registered, one request for each PBX, and tell of changes.

offhook:phones:PBX   hash: EXTENSION -> what was seen of its phones; expires
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import RedisError

from offhook.announcements import announce
from offhook.connection import connect, connect_rq
from offhook.errors import OffhookError
from offhook.event import CallEvent
from offhook.extensions import Extensions
from offhook.inbox import Inbox
from offhook.pbx import open_api, sentence
from offhook.phones import Phone, look
from offhook.settings import Settings, load_settings
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import UnifiedApiError
from workers import process

log = logging.getLogger("offhook.presence")

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
    key = f"offhook:phones:{pbx}"
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
