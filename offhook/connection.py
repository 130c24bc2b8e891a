"""Connections to Redis or Valkey, for asyncio and for RQ; directly, or to whom Sentinels name."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

import redis
import redis.asyncio
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.sentinel import Sentinel, SentinelManagedConnection

SOCKET_TIMEOUT = 5.0  # seconds; longer than any command of ours blocks
BLOCK_MS = 2_000  # the longest that one of ours does block
_TIMEOUTS = {"socket_timeout": SOCKET_TIMEOUT, "socket_connect_timeout": 2.0}
_SENTINEL_TIMEOUTS = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5}  # the next one knows


def connect(url: str, tries: int = 3) -> redis.asyncio.Redis:
    """An asyncio client that bridges a short interruption: all that we send may be sent twice.

    Args:
        tries: how often a command is sent again, up to half a second apart; 0 for reads from a
            cursor, where a lost answer must be noticed.
    """
    options: dict[str, Any] = {
        **_TIMEOUTS,
        "health_check_interval": 15,
        "retry": AsyncRetry(ExponentialBackoff(cap=0.5, base=0.05), tries),
        "retry_on_error": [RedisConnectionError, RedisTimeoutError],
    }
    client: redis.asyncio.Redis
    if _is_sentinel(url):
        at = _read_sentinel_url(url)
        sentinels: Any = AsyncSentinel  # redis-py does not annotate it
        client = sentinels(at.sentinels, sentinel_kwargs=at.sentinel_options).master_for(
            at.name, **at.options, **options
        )
    else:
        client = redis.asyncio.Redis.from_url(url, **options)
    return client


def connect_rq(url: str) -> redis.Redis:
    """A blocking client, for RQ and for the command line."""
    client: redis.Redis
    if _is_sentinel(url):
        at = _read_sentinel_url(url)
        sentinels: Any = Sentinel  # redis-py does not annotate it
        client = sentinels(at.sentinels, sentinel_kwargs=at.sentinel_options).master_for(
            at.name, connection_class=_Managed, **at.options, **_TIMEOUTS
        )
    else:
        client = redis.Redis.from_url(url, **_TIMEOUTS)
    return client


def check_url(url: str) -> None:
    """Raise ValueError when it is no URL that can be connected to."""
    if _is_sentinel(url):
        _read_sentinel_url(url)
    else:
        parse_url(url)


def shown(url: str) -> str:
    """The URL without its passwords, for messages."""
    url = url.partition("?")[0]
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://***@{tail}" if at else url


class _Managed(SentinelManagedConnection):
    """RQ's signals interrupt reading. Then the connection must go, or its answer is the next
    command's: redis-py sees to that with `disconnect_on_error`, which is off by default just here.
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


@dataclass(frozen=True)
class _SentinelUrl:
    sentinels: list[tuple[str, int]]
    name: str
    options: dict[str, Any]
    sentinel_options: dict[str, Any]


def _is_sentinel(url: str) -> bool:
    return url.startswith("sentinel://")


def _read_sentinel_url(url: str) -> _SentinelUrl:
    """Read `sentinel://HOST:PORT,HOST:PORT/NAME/DB?password=...&sentinel_password=...`."""
    # By hand: of several hosts in one URL urllib thinks that brackets are in the wrong place.
    location, _, query = url.removeprefix("sentinel://").partition("?")
    hosts, _, path = location.partition("/")
    name, _, database = path.strip("/").partition("/")
    given = {key: values[-1] for key, values in parse_qs(query).items()}
    known = {"username", "password", "sentinel_username", "sentinel_password"}
    if not name or not hosts or "@" in hosts or not given.keys() <= known:
        raise ValueError("not of the form sentinel://HOST:PORT,HOST:PORT/NAME/DB?password=...")
    sentinel_options: dict[str, Any] = {
        key.removeprefix("sentinel_"): value
        for key, value in given.items()
        if key.startswith("sentinel_")
    }
    options: dict[str, Any] = {k: v for k, v in given.items() if not k.startswith("sentinel_")}
    return _SentinelUrl(
        sentinels=[_host_and_port(each) for each in hosts.split(",")],
        name=unquote(name),
        options=options | {"db": int(database or 0)},
        sentinel_options=sentinel_options | _SENTINEL_TIMEOUTS,
    )


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if colon and not text.endswith("]") else (text, 26379)
