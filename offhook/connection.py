"""Connections to Redis or Valkey: to a server, through Sentinels, or to a cluster."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import (
    Sentinel,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from offhook.inbox import Inbox
from offhook.redis_servers import BlockingCluster, Cluster
from offhook.redis_servers.redis_url import read_cluster_url, read_sentinel_url
from offhook.settings import Settings

# Seconds; longer than any of our commands blocks (`offhook.inbox.BLOCK_MS`).
_TIMEOUTS = {"socket_timeout": 5.0, "socket_connect_timeout": 2.0}
_TRIES = 3  # of a cluster's command
# Short, because the next Sentinel knows the same.
_SENTINEL_TIMEOUTS = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5}


@asynccontextmanager
async def opened(settings: Settings, tries: int = 3) -> AsyncIterator[tuple[Inbox, redis.Redis]]:
    """As `connected`, with an inbox that knows its partitions.

    Raises:
        RedisError: Redis does not answer.
    """
    async with connected(settings, tries) as (inbox, rq):
        await inbox.numbering.load()
        yield inbox, rq


@asynccontextmanager
async def connected(settings: Settings, tries: int = 3) -> AsyncIterator[tuple[Inbox, redis.Redis]]:
    """The inbox (with its asyncio client, `inbox.redis`) and a blocking client of RQ's server.

    Args:
        tries: as in `connect`.
    """
    async with connect(settings.redis_url, tries) as client:
        with connect_rq(settings.jobs_url, tries) as rq:
            yield Inbox(client, settings.partitions, settings.durability, settings.replicas), rq


def connect(url: str, tries: int = 3) -> redis.asyncio.Redis:
    """An asyncio client that retries through a short outage: any command may be sent twice.

    Args:
        tries: number of retries, up to half a second apart. 0 for commands that block, where a
            lost response must be noticed.
    """
    options: dict[str, Any] = {**_TIMEOUTS, "health_check_interval": 15}
    if cluster := read_cluster_url(url):
        return Cluster(cluster, tries, options)
    options |= {
        "retry": AsyncRetry(ExponentialBackoff(cap=0.5, base=0.05), tries),
        "retry_on_error": [RedisConnectionError, RedisTimeoutError],
    }
    client: redis.asyncio.Redis = _client(url, redis.asyncio.Redis, AsyncSentinel, options)
    return client


def connect_rq(url: str, tries: int | None = None, timeout: float | None = None) -> redis.Redis:
    """A blocking client, for RQ, threads and the command line. RQ cannot use that of a cluster.

    Args:
        tries: number of retries, up to half a second apart; None: as many as redis-py makes.
        timeout: seconds to wait for a connection or a response; None: as long as the commands of
            workers may take.
    """
    options: dict[str, Any] = {**_TIMEOUTS}
    if timeout is not None:
        options = dict.fromkeys(options, timeout)
    if cluster := read_cluster_url(url):
        return BlockingCluster(cluster, _TRIES if tries is None else tries, options)
    if tries is not None:
        options["retry"] = Retry(ExponentialBackoff(cap=0.5, base=0.05), tries)
    client: redis.Redis = _client(url, redis.Redis, Sentinel, options)
    return client


def server_urls(url: str, tries: int = _TRIES) -> list[str]:
    """The URL of each server behind a URL: of a cluster's primaries, or that one.

    Raises:
        RedisError: no node of the cluster answers.
    """
    cluster = read_cluster_url(url)
    if cluster is None:
        return [url]
    with BlockingCluster(cluster, tries, _TIMEOUTS) as client:
        return [cluster.of_node(*address) for address in client.primaries()]


def _client(url: str, direct: Any, sentinel: Any, options: dict[str, Any]) -> Any:
    at = read_sentinel_url(url)
    if at is None:
        return direct.from_url(url, **options)
    if sentinel is Sentinel:
        options = options | {"connection_class": _ManagedTls if at.options.get("ssl") else _Managed}
    sentinels = sentinel(at.sentinels, sentinel_kwargs=at.sentinel_options | _SENTINEL_TIMEOUTS)
    return sentinels.master_for(at.name, **at.options, **options)


class _Managed(SentinelManagedConnection):
    """Disconnects when one of RQ's signals interrupts a read.

    Otherwise the next command would get the response of the interrupted one. redis-py disconnects
    by default, except in this class.
    """

    def read_response(
        self,
        disable_decoding: bool = False,
        *,
        disconnect_on_error: bool | None = True,
        **options: Any,
    ) -> Any:
        return super().read_response(
            disable_decoding, disconnect_on_error=disconnect_on_error, **options
        )


class _ManagedTls(_Managed, SentinelManagedSSLConnection):
    """The same, with TLS."""
