"""A server whose memory is nearly full."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis

_BALLAST = 20_000_000  # bytes, beside which those of connections that come and go are nothing


@contextmanager
def nearly_full(redis: Redis) -> Iterator[None]:
    """Let the server have used 97 % of `maxmemory` in this context."""
    redis.setrange("ballast", _BALLAST, b"x")  # the server keeps no buffer for it
    memory: Any = redis.info("memory")
    redis.config_set("maxmemory", int(memory["used_memory"] / 0.97))
    try:
        yield
    finally:
        redis.config_set("maxmemory", 0)
        redis.delete("ballast")
