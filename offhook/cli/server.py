"""The Redis server, as the commands reach it."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis import Redis
from redis.exceptions import RedisError

from offhook.connection import connect, connect_rq
from offhook.inbox import Inbox
from offhook.safety import risks
from offhook.settings import Settings

log = logging.getLogger("offhook")


def tell_risks(settings: Settings) -> None:
    """Say at the start what the server's settings put at risk. It may be away: then that is all."""
    with suppress(RedisError), connect_rq(settings.redis_url) as redis:
        for risk in risks(redis, settings):
            log.warning(risk)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[tuple[Inbox, Redis]]:
    """The inbox, and a client for RQ; both are closed in the end."""
    redis, rq = connect(settings.redis_url), connect_rq(settings.redis_url)
    try:
        yield Inbox(redis, settings.partitions), rq
    finally:
        await redis.aclose()
        rq.close()
