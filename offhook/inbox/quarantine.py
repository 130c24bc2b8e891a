"""The quarantine: refused callbacks, kept to be looked at, and delivered later."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis

from offhook.inbox import keys
from offhook.inbox.positions import order_of

_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")


async def keep(
    redis: Redis, refused: Sequence[dict[str, str | bytes]], size: int, tenant: str = ""
) -> None:
    """Keep refused callbacks of a tenant; only its newest `size` are kept."""
    if not size:
        return
    name = keys.quarantine(tenant)
    async with redis.pipeline(transaction=False) as pipeline:
        for each in refused:
            pipeline.xadd(name, each, maxlen=size, approximate=False)  # type: ignore[arg-type]
        await pipeline.execute()


async def set_aside(redis: Redis, stored: bytes, error: str, size: int, tenant: str) -> None:
    """Keep an event of a tenant that workers cannot read.

    Args:
        error: where it was, and why it cannot be read.
        size: as in `keep`.
    """
    await keep(redis, [{"error": error, "event": stored}], size, tenant)


async def kept(
    redis: Redis, tenant: str = "", after: str | None = None, most: int | None = None
) -> list[tuple[str, dict[str, bytes]]]:
    """The refused callbacks with their ids, the newest first.

    Args:
        after: only those that come after the one with this id.
        most: maximum number; None: all.

    Raises:
        ValueError: `after` is not an id.
    """
    if after is not None and not _ID.fullmatch(after):
        raise ValueError(f"{after!r} is not the id of a refused callback")
    top = "+" if after is None else f"({after}"
    return _items(await redis.xrevrange(keys.quarantine(tenant), top, "-", most))


async def get(
    redis: Redis, ids: Iterable[str], tenant: str = ""
) -> list[tuple[str, dict[str, bytes]]]:
    """The refused callbacks with these ids, in this order, as far as they exist."""
    name = keys.quarantine(tenant)
    async with redis.pipeline(transaction=False) as pipeline:
        for each in ids:
            if _ID.fullmatch(each):
                pipeline.xrange(name, each, each)
        return _items([item for items in await pipeline.execute() for item in items])


def _items(found: Any) -> list[tuple[str, dict[str, bytes]]]:
    return [
        (id_.decode(), _whole(id_, {name.decode(): value for name, value in refused.items()}))
        for id_, refused in found
    ]


def _whole(id_: bytes, refused: dict[str, bytes]) -> dict[str, bytes]:
    """With what every refused callback has: an event that workers set aside has no callback."""
    if "event" not in refused:
        return refused
    seconds = order_of(id_)[0] / 1000
    return dict.fromkeys(("method", "pbx", "extension", "event_type"), b"?") | {
        "message": refused["error"],
        "received": datetime.fromtimestamp(seconds, UTC).isoformat().encode(),
        **refused,
    }


async def remove(redis: Redis, ids: Sequence[str], tenant: str = "") -> None:
    """Delete refused callbacks."""
    if ids:
        await redis.xdel(keys.quarantine(tenant), *ids)


async def trim(redis: Redis, before: datetime, tenant: str = "") -> int:
    """Delete the callbacks that were refused before then. Returns how many."""
    position = int(before.timestamp() * 1000)
    name = keys.quarantine(tenant)
    return int(await redis.xtrim(name, minid=position, approximate=False))


async def length(redis: Redis, tenant: str = "") -> int:
    """Return how many refused callbacks are kept."""
    return int(await redis.xlen(keys.quarantine(tenant)))


async def clear(redis: Redis, tenant: str = "") -> None:
    """Delete all refused callbacks."""
    await redis.delete(keys.quarantine(tenant))
