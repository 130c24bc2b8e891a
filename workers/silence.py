"""`find_silent_extensions`: announces extensions that have unusually long had no call.

offhook:habits          hash: `PBX/EXTENSION` -> its calls of the last days by the hour;
                        `since`, `until` -> the time for which these are complete
offhook:habits:silent   hash: `PBX/EXTENSION` -> the hour of its last call before it was announced
"""

import asyncio
import logging
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import msgspec
from msgspec.structs import replace
from redis.asyncio import Redis
from redis.exceptions import RedisError

from offhook.announcements import announce
from offhook.connection import opened
from offhook.errors import InboxUnavailable
from offhook.event import CallEvent
from offhook.extensions import Extensions, Name
from offhook.inbox import Inbox, keys
from offhook.inbox.call_store import Calls, Kept
from offhook.settings import Settings
from workers import process, version
from workers.habits import KEPT, event, hour_of, silence

log = logging.getLogger("offhook.silence")

_OVERLAP = timedelta(hours=2)  # recounted each time, for calls that become known late
_REPEAT = 86_400.0  # seconds in which a killed job may announce the same silence again

_hours = msgspec.json.Decoder(dict[int, int]).decode


def find_silent_extensions() -> None:
    """The RQ job."""
    process.die_with_parent()
    asyncio.run(listen_to_all(version.settings()))


async def listen_to_all(settings: Settings) -> None:
    """Count the calls since the last run, and announce silent extensions."""
    try:
        async with opened(settings) as (inbox, _):
            await look(settings, inbox, datetime.now(UTC))
    except (InboxUnavailable, RedisError) as error:
        log.error("cannot look for silent extensions, will retry: %s", error)


async def look(settings: Settings, inbox: Inbox, now: datetime) -> None:
    """Look for silent extensions once.

    Raises:
        InboxUnavailable, RedisError: the next run does the same work.
    """
    redis, names = inbox.redis, await Extensions(inbox.redis).names()
    stored: Any = await redis.hgetall(keys.HABITS)
    kept_since = now - timedelta(days=settings.keep_days)
    since = _moment(stored.pop(b"since", None)) or _next_hour(kept_since)
    until = _moment(stored.pop(b"until", None)) or since
    if until < kept_since:  # the calls in between are deleted
        stored, since, until = {}, _next_hour(kept_since), _next_hour(kept_since)
    begin = max(until - _OVERLAP, since)
    habits = await _count(settings, inbox, names, begin)
    for name in names:
        before = _hours(stored.get(_field(name).encode(), b"{}"))
        oldest = hour_of(max(begin - KEPT, since))
        habits[name].update(
            {hour: n for hour, n in before.items() if oldest <= hour < hour_of(begin)}
        )
    announced: Any = await redis.hgetall(keys.SILENT)
    silent: dict[Any, Any] = {}
    events: list[CallEvent] = []
    for name in names:
        calls = habits[name]
        last = str(max(calls, default=0))
        if announced.get(_field(name).encode()) == last.encode():
            silent[_field(name)] = last  # until its next call
            continue
        found = silence(calls, since, now, _zone(settings, name[0]))
        if found is not None:
            events.append(replace(event(*name, found, now), tenant=settings.tenant_of(*name)))
            silent[_field(name)] = last
    await announce(settings, inbox, events, window=_REPEAT)
    packed: dict[Any, Any] = {
        _field(name): msgspec.json.encode(dict(habits[name])) for name in names
    }
    packed |= {"since": since.isoformat(), "until": now.isoformat()}
    # First: what is reported is not reported again, if this run ends between them.
    await _replace(redis, keys.SILENT, silent)
    await _replace(redis, keys.HABITS, packed)


async def _replace(redis: Redis, key: str, fields: dict[Any, Any]) -> None:
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.delete(key)
        if fields:
            pipeline.hset(key, mapping=fields)
        await pipeline.execute()


async def _count(
    settings: Settings, inbox: Inbox, names: set[Name], begin: datetime
) -> dict[Name, Counter[int]]:
    """Count the calls of these extensions by the hour, from the hour of `begin`."""
    first = hour_of(begin)
    found: defaultdict[Name, Counter[int]] = defaultdict(Counter)
    since = datetime.fromtimestamp(first * 3600, UTC)
    for tenant in ("", *settings.tenants):
        async for kept in Calls(inbox).since(since, tenant):
            for extension, hour in _heard(kept):
                name = (kept.state.pbx, extension)
                if name in names and hour >= first:
                    found[name][hour] += 1
    return found


def _heard(kept: Kept) -> set[tuple[str, int]]:
    """Return the extensions with callbacks in a call, and their hours. Records do not count."""
    return {
        (part.extension, part.first // 3_600_000_000)
        for part in kept.state.parts
        if part.first is not None
    }


def _zone(settings: Settings, pbx: str) -> tzinfo:
    """Return the PBX's time zone, or this machine's if it is not configured."""
    configured = settings.pbx.get(pbx)
    here = datetime.now(UTC).astimezone().tzinfo or UTC
    return configured.tzinfo if configured and configured.zone else here


def _next_hour(moment: datetime) -> datetime:
    return datetime.fromtimestamp((hour_of(moment) + 1) * 3600, UTC)


def _moment(stored: bytes | None) -> datetime | None:
    return None if stored is None else datetime.fromisoformat(stored.decode())


def _field(name: Name) -> str:
    return "/".join(name)
