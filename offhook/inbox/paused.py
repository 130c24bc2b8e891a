"""Handlers that a person paused: their positions wait until one resumes them."""

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis

from offhook.inbox import keys

log = logging.getLogger("offhook.serve")


@dataclass(frozen=True)
class Pause:
    """Why nothing is delivered to a handler.

    Attributes:
        by: who paused it.
        since: when, in seconds since 1970.
    """

    by: str
    since: float

    @property
    def began(self) -> datetime:
        """When it was paused, UTC."""
        return datetime.fromtimestamp(self.since, UTC)

    def stored(self) -> str:
        """The form that Redis has."""
        return json.dumps(asdict(self))


async def pause_handler(redis: Redis, handler: str, by: str) -> bool:
    """Have nothing delivered to a handler. Return False if it was paused already."""
    stored = Pause(by, datetime.now(UTC).timestamp()).stored()
    return bool(await redis.hsetnx(keys.PAUSED, handler, stored))


async def resume_handler(redis: Redis, handler: str) -> bool:
    """Deliver to a handler again. Return False if it was not paused."""
    return bool(await redis.hdel(keys.PAUSED, handler))


async def paused_handlers(redis: Redis) -> dict[str, Pause]:
    """The handlers that are paused, by name."""
    stored: Any = await redis.hgetall(keys.PAUSED)
    return {name.decode(): _read(value) for name, value in stored.items()}


def _read(stored: bytes) -> Pause:
    try:
        return Pause(**json.loads(stored))
    except (ValueError, TypeError):
        log.error("a record in %s cannot be read: the handler stays paused", keys.PAUSED)
        return Pause("?", 0.0)
