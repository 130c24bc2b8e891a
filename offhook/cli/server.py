"""The Redis server, as the commands reach it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis import Redis

from offhook.connection import connect, connect_rq
from offhook.inbox import Inbox
from offhook.settings import Settings


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[tuple[Inbox, Redis]]:
    """The inbox, and a client for RQ; both are closed in the end."""
    redis, rq = connect(settings.redis_url), connect_rq(settings.redis_url)
    try:
        yield Inbox(redis, settings.partitions), rq
    finally:
        await redis.aclose()
        rq.close()
