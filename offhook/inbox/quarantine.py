"""The quarantine: refused callbacks, kept to be looked at, and delivered later."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from redis.asyncio import Redis

from offhook.inbox.keys import QUARANTINE


async def keep(redis: Redis, refused: Sequence[dict[str, str | bytes]], size: int) -> None:
    """Keep refused callbacks; only the newest `size` are kept."""
    if not size:
        return
    async with redis.pipeline(transaction=False) as pipeline:
        for each in refused:
            pipeline.xadd(QUARANTINE, each, maxlen=size, approximate=False)  # type: ignore[arg-type]
        await pipeline.execute()


async def kept(redis: Redis) -> list[tuple[str, dict[str, bytes]]]:
    """The refused callbacks with their ids, the newest first."""
    found: Any = await redis.xrevrange(QUARANTINE)
    return [
        (id_.decode(), {name.decode(): value for name, value in refused.items()})
        for id_, refused in found
    ]


async def remove(redis: Redis, ids: Sequence[str]) -> None:
    """Delete refused callbacks."""
    if ids:
        await redis.xdel(QUARANTINE, *ids)


async def trim(redis: Redis, before: datetime) -> int:
    """Delete the callbacks that were refused before then. Returns how many."""
    position = int(before.timestamp() * 1000)
    return int(await redis.xtrim(QUARANTINE, minid=position, approximate=False))


async def length(redis: Redis) -> int:
    """Return how many refused callbacks are kept."""
    return int(await redis.xlen(QUARANTINE))


async def clear(redis: Redis) -> None:
    """Delete all refused callbacks."""
    await redis.delete(QUARANTINE)
