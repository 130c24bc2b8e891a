"""The feed: accepted events and attempts at deliveries, for clients that watch them live."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from redis.asyncio import Redis

from offhook.event import CallEvent, from_stored
from offhook.inbox import keys
from offhook.inbox.stream import BLOCK_MS
from offhook.tasks import asked_to_end, end

_AHEAD = 1000  # events that are read before the last is taken


async def is_watched(redis: Redis) -> bool:
    """Return whether a client watches deliveries."""
    found = await redis.pubsub_numsub(keys.DELIVERIES)
    return bool(found and found[0][1])


async def publish(redis: Redis, attempts: list[dict[str, Any]]) -> None:
    """Publish attempts at deliveries."""
    await redis.publish(keys.DELIVERIES, msgspec.json.encode(attempts))


async def watch_deliveries(redis: Redis) -> AsyncIterator[dict[str, Any]]:
    """The attempts of all handlers, as they are made. Never ends by itself."""
    async with redis.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(keys.DELIVERIES)
        while True:
            message = await channel.get_message(timeout=BLOCK_MS / 1000)
            for attempt in msgspec.json.decode(message["data"]) if message else ():
                yield attempt


async def watch_events(redis: Redis, partitions: int) -> AsyncIterator[CallEvent]:
    """The events of all partitions, as they are accepted. Never ends by itself."""
    found: asyncio.Queue[CallEvent] = asyncio.Queue(_AHEAD)

    async def follow(partition: int) -> None:
        # A read of its own: a cluster may have the partitions on different servers.
        stream, position = keys.inbox(partition), b"$"
        while not asked_to_end():
            answer: Any = await redis.xread({stream: position}, block=BLOCK_MS)
            for _, items in answer or ():
                for position, fields in items:
                    await found.put(from_stored(fields[b"e"]))

    following = [asyncio.create_task(follow(partition)) for partition in range(partitions)]
    next_one = asyncio.create_task(found.get())
    try:
        while True:
            await asyncio.wait([next_one, *following], return_when=asyncio.FIRST_COMPLETED)
            for task in following:
                if task.done():
                    task.result()
            if next_one.done():
                yield next_one.result()
                next_one = asyncio.create_task(found.get())
    finally:
        await end(next_one, *following)
