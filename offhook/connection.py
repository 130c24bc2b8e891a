"""Connections to Redis or Valkey, for asyncio and for RQ."""

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

SOCKET_TIMEOUT = 5.0  # seconds; longer than any command of ours blocks
BLOCK_MS = 2_000  # the longest that one of ours does block


def connect(url: str, tries: int = 3) -> redis.asyncio.Redis:
    """An asyncio client that bridges a short interruption: all that we send may be sent twice.

    Args:
        tries: how often a command is sent again, up to half a second apart; 0 for reads from a
            cursor, where a lost answer must be noticed.
    """
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
        url,
        socket_timeout=SOCKET_TIMEOUT,
        socket_connect_timeout=2.0,
        health_check_interval=15,
        retry=AsyncRetry(ExponentialBackoff(cap=0.5, base=0.05), tries),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
    )
    return client


def connect_rq(url: str) -> redis.Redis:
    """A blocking client, for RQ and for the command line."""
    client: redis.Redis = redis.Redis.from_url(
        url, socket_timeout=SOCKET_TIMEOUT, socket_connect_timeout=2.0
    )
    return client


def shown(url: str) -> str:
    """The URL without its password, for messages."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://***@{tail}" if at else url
