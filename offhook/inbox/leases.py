"""`Leases`: the leases of a server, and its share of the partitions."""

import time
from collections.abc import Mapping, Sequence
from math import ceil
from random import Random
from typing import Any

from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from offhook.inbox import keys
from offhook.inbox.entries import MOST_PARTITIONS
from offhook.inbox.partition import LEASE_MS, holder, new_token
from offhook.inbox.scripts import script

__all__ = ["LEASE_MS", "Leases", "release_leases"]


class Leases:
    """Renews the leases of one server.

    Args:
        partitions: number of partitions.
        pool: the pool of handlers that the server serves.
        least: number of servers that will share them, though not all may run yet.
    """

    def __init__(self, redis: Redis, partitions: int, pool: str, least: int) -> None:
        self.name = new_token()
        self.order = list(range(partitions))
        Random(self.name).shuffle(self.order)  # so that servers that begin at once rarely collide
        self._redis = redis
        self._pool = pool
        self._least = least
        self._left = False
        self._servers = keys.servers(pool)
        self._renew = redis.register_script(script("renew"))

    def add(self, partitions: Sequence[int]) -> None:
        """Share these partitions, too."""
        self.order += partitions

    async def renew(self, tokens: Mapping[int, str]) -> tuple[int, list[int]]:
        """Renew the leases of these partitions. Return how many the server should have, and
        those that it no longer has.
        """
        now = time.time()
        async with self._redis.pipeline(transaction=False) as pipeline:
            if self._left:
                pipeline.zrem(self._servers, self.name)
            else:
                pipeline.zadd(self._servers, {self.name: now})
            pipeline.zremrangebyscore(self._servers, 0, now - LEASE_MS / 1000)
            # Of servers that died before the clock was set back.
            pipeline.zremrangebyscore(self._servers, now + LEASE_MS / 1000, "+inf")
            pipeline.zcard(self._servers)
            for number, token in tokens.items():
                await self._renew(
                    keys=[keys.serving(number, self._pool)], args=[token, LEASE_MS], client=pipeline
                )
            answers: Any = await pipeline.execute()
        servers, renewed = int(answers[3]), answers[4:]
        lost = [number for number, kept in zip(tokens, renewed, strict=True) if not kept]
        return ceil(len(self.order) / max(servers, self._least)), lost

    async def leave(self) -> bool:
        """Let the other servers have this one's share. Return whether there are others."""
        self._left = True
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.zrem(self._servers, self.name)
            pipeline.zcard(self._servers)
            others: int = (await pipeline.execute())[1]
        return others > 0

    async def note_circuit(self, handler: str, seconds: float | None) -> None:
        """Store when the next probe of an open circuit is, or that it is closed."""
        if seconds is None:
            await self._redis.delete(keys.circuit(handler))
        else:
            await self._redis.set(keys.circuit(handler), "open", px=max(1, int(seconds * 1000)))


def release_leases(redis: BlockingRedis, pool: str, pid: int) -> None:
    """Free the leases of a dead process of this machine, and its share of the partitions."""
    release = redis.register_script(script("release"))
    with redis.pipeline(transaction=False) as pipeline:
        for number in range(MOST_PARTITIONS):
            pipeline.get(keys.serving(number, pool))
        holders = pipeline.execute()
    for number, token in enumerate(holders):
        if token and token.startswith(holder(pid).encode()):
            release(keys=[keys.serving(number, pool)], args=[holder(pid)])
    servers: Any = redis.zrange(keys.servers(pool), 0, -1)
    for name in servers:
        if name.startswith(holder(pid).encode()):
            redis.zrem(keys.servers(pool), name)
