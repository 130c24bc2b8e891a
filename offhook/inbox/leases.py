"""`Lease`: the right to serve a partition. `Leases`: those of a server, and its share."""

import math
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from offhook.errors import LeaseLost
from offhook.inbox import keys
from offhook.inbox.entries import MOST_PARTITIONS
from offhook.inbox.scripts import script

LEASE_MS = 8_000  # a server that has not renewed its lease for so long is considered dead


class Lease:
    """The right of a server to serve a partition for a pool. It expires unless it is renewed.

    Args:
        number: of the partition.
        pool: the pool of handlers; the shared one if empty.
        token: unique to the server and the time for which it serves the partition.
    """

    def __init__(self, redis: Redis, number: int, pool: str, token: str | None = None) -> None:
        self.token = token or new_token()
        self.key = keys.serving(number, pool)
        self._number = number
        self._redis = redis
        self._take: AsyncScript = redis.register_script(script("take"))
        self._release: AsyncScript = redis.register_script(script("release"))

    async def take(self) -> float:
        """Take the lease. Returns 0, or the seconds until the lease of its holder ends."""
        return await self._take_in_place_of(self.token)

    async def take_anew(self) -> None:
        """Take our lease with a new token: a failover that loses what came before loses it, too.

        Raises:
            LeaseLost: another server serves the partition.
        """
        before, self.token = self.token, new_token()
        if await self._take_in_place_of(before) > 0:
            raise self.lost()

    async def _take_in_place_of(self, before: str) -> float:
        left: float = await self._take(keys=[self.key], args=[self.token, LEASE_MS, before])
        return max(0.0, left / 1000)

    async def release(self) -> None:
        """Give the lease back."""
        await self._release(keys=[self.key], args=[self.token])

    async def check(self) -> None:
        """Return if the lease is still ours: no other server has changed anything since `take`.

        Raises:
            LeaseLost: another server serves the partition, or may have served it.
        """
        if await self._redis.get(self.key) != self.token.encode():
            raise self.lost()

    def lost(self) -> LeaseLost:
        """The error that another server serves the partition."""
        return LeaseLost(f"another process serves partition {self._number}")


class Leases:
    """Renews the leases of one server.

    Args:
        partitions: number of partitions.
        pool: the pool of handlers that the server serves.
        least: number of servers that will share them, though not all may run yet.

    Attributes:
        next_death: when a server counts as dead that has given no sign of life lately, unless it
            does; monotonic, in seconds.
    """

    def __init__(self, redis: Redis, partitions: int, pool: str, least: int) -> None:
        self.name = new_token()
        self.next_death = math.inf
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

    async def share(self) -> int:
        """Give a sign of life. Return how many partitions the server should have."""
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
            pipeline.zrange(self._servers, 0, 0, withscores=True)
            found: Any = await pipeline.execute()
        servers: int = found[-2]
        oldest: list[tuple[bytes, float]] = found[-1]
        left = oldest[0][1] + LEASE_MS / 1000 - now if oldest else math.inf
        self.next_death = time.monotonic() + left
        return math.ceil(len(self.order) / max(servers, self._least))

    async def renew(self, tokens: Mapping[int, str]) -> list[int]:
        """Renew the leases of these partitions. Return those that the server no longer has."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for number, token in tokens.items():
                await self._renew(
                    keys=[keys.serving(number, self._pool)], args=[token, LEASE_MS], client=pipeline
                )
            renewed: Any = await pipeline.execute()
        return [number for number, kept in zip(tokens, renewed, strict=True) if not kept]

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


def new_token() -> str:
    """A token for a lease, which names this process."""
    return f"{holder(os.getpid())}{secrets.token_hex(8)}"


def holder(pid: int) -> str:
    """What the tokens of a process on this machine begin with."""
    return f"{socket.gethostname()}/{pid}/"
