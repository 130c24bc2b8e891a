"""The feed: accepted events and attempts at deliveries, for clients that watch them live."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from redis.asyncio import Redis

from offhook.event import CallEvent, from_stored
from offhook.inbox import keys
from offhook.inbox.stream import BLOCK_MS


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
    streams: Any = {keys.inbox(partition): "$" for partition in range(partitions)}
    while True:
        answer: Any = await redis.xread(streams, block=BLOCK_MS)
        for stream, items in answer or ():
            for position, fields in items:
                streams[stream.decode()] = position
                yield from_stored(fields[b"e"])
