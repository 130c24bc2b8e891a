"""The feed: accepted events and attempts at deliveries, for clients that watch them live."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis.asyncio import Redis

from offhook.event import CALLBACKS, CallEvent, tenant_of
from offhook.inbox import keys
from offhook.inbox.appender import BLOCK_MS
from offhook.inbox.entries import events_of
from offhook.inbox.positions import position_at, position_before
from offhook.inbox.stream import Inbox
from offhook.tasks import asked_to_end, end

_AHEAD = 1000  # events that are read before the last is taken
_LOOK_EVERY = 2.0  # seconds between looks for new partitions


async def is_watched(redis: Redis) -> bool:
    """Return whether a client watches deliveries."""
    found = await redis.pubsub_numsub(keys.DELIVERIES)
    return bool(found and found[0][1])


async def publish(redis: Redis, attempts: list[dict[str, Any]]) -> None:
    """Publish attempts at deliveries."""
    await redis.publish(keys.DELIVERIES, msgspec.json.encode(attempts))


async def watch_deliveries(redis: Redis, tenant: str = "") -> AsyncIterator[dict[str, Any]]:
    """The attempts at a tenant's events, as they are made. Never ends by itself."""
    async with redis.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(keys.DELIVERIES)
        while True:
            message = await channel.get_message(timeout=BLOCK_MS / 1000)
            for attempt in msgspec.json.decode(message["data"]) if message else ():
                if tenant_of(attempt["call"]) == tenant:
                    yield attempt


async def received_since(
    inbox: Inbox, since: datetime, most: int, tenant: str = "", until: datetime | None = None
) -> AsyncIterator[datetime]:
    """When a tenant's newest callbacks were received, in no order.

    Args:
        most: events of each partition to look at.
        until: before when; None: up to now.
    """
    first, last = position_at(since), position_before(position_at(until)) if until else "+"
    for partition in range(inbox.partitions):
        found: Any = await inbox.redis.xrevrange(keys.inbox(partition, tenant), last, first, most)
        for event in events_of(found):
            if event.type in CALLBACKS:
                yield event.received


async def server_time(redis: Redis) -> datetime:
    """The time by the clock of the server, which numbers the events."""
    seconds, microseconds = await redis.time()
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)


async def watch_events(
    inbox: Inbox, tenant: str = "", since: datetime | None = None
) -> AsyncIterator[CallEvent]:
    """A tenant's events in all partitions, as they are accepted. Never ends by itself.

    Args:
        since: from this moment on, by `server_time`; None: from now on.
    """
    found: asyncio.Queue[CallEvent] = asyncio.Queue(_AHEAD)
    first = position_at(since or await server_time(inbox.redis))
    began = position_before(first).encode()  # a read begins after its position

    async def follow(partition: int) -> None:
        # A read of its own: a cluster may have the partitions on different servers.
        stream, position = keys.inbox(partition, tenant), began
        while not asked_to_end():
            answer: Any = await inbox.redis.xread({stream: position}, block=BLOCK_MS)
            for _, items in answer or ():
                for event in events_of(items):
                    await found.put(event)
                position = items[-1][0]

    following: list[asyncio.Task[None]] = []
    next_one = asyncio.create_task(found.get())
    try:
        while True:
            for partition in range(len(following), inbox.partitions):
                following.append(asyncio.create_task(follow(partition)))
            await asyncio.wait(
                [next_one, *following],
                timeout=_LOOK_EVERY,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in following:
                if task.done():
                    task.result()
            if next_one.done():
                yield next_one.result()
                next_one = asyncio.create_task(found.get())
            else:
                await inbox.numbering.load()
    finally:
        await end(next_one, *following)
