"""When people and walls were last seen: noted in memory, written every few seconds."""

import asyncio
import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from offhook.inbox import keys

_EVERY = 5.0  # seconds


class LastSeen:
    """Notes who is seen, and writes it to Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._noted: defaultdict[str, dict[str, int]] = defaultdict(dict)

    def note(self, tenant: str, who: str) -> None:
        """Note that a person or a screen is seen now.

        Args:
            who: `user NAME` or `wall ID`.
        """
        self._noted[tenant][who] = int(time.time() * 1000)

    async def all(self, tenant: str) -> dict[str, datetime]:
        """When each was last seen."""
        await self.write()
        found: Any = await self._redis.hgetall(keys.last_seen(tenant))
        return {
            who.decode(): datetime.fromtimestamp(int(at) / 1000, UTC) for who, at in found.items()
        }

    async def write(self) -> None:
        """Write what was noted since the last time."""
        noted, self._noted = self._noted, defaultdict(dict)
        for tenant, seen in noted.items():
            await self._redis.hset(keys.last_seen(tenant), mapping=seen)  # type: ignore[arg-type]

    async def run(self) -> None:
        """Write every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self.write()
            except RedisError:
                continue  # the live feed reports it; what was noted is soon noted again
