"""Servers, as the commands need them: Redis, to be reached; one of ours, to be listened at."""

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis import Redis
from redis.exceptions import RedisError

from offhook.connection import connect, connect_rq
from offhook.errors import ConfigError
from offhook.inbox import Inbox
from offhook.operations.server_risks import risks
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


def bound(host: str, port: int) -> socket.socket:
    """A socket for a server to listen at.

    Raises:
        ConfigError: the address is not this machine's, or the port is taken.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose with --host and --port"
        ) from error
    sock.set_inheritable(True)
    return sock
