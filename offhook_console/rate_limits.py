"""`rate_limiter`: counts in Redis, for all processes of the console and through its reloads."""

from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import Redis


def rate_limiter(redis: Redis, prefix: str) -> MovingWindowRateLimiter:
    """A rate limiter that counts in Redis.

    Args:
        prefix: what the names of its keys begin with, up to a colon.
    """
    storage = RedisStorage(
        "async+redis://", implementation="redispy", key_prefix=prefix.rstrip(":")
    )
    # Through our own client, which may be of a cluster or go through Sentinels.
    storage.bridge.connection_getter = lambda readonly: redis  # type: ignore[attr-defined]
    storage.bridge.register_scripts()
    return MovingWindowRateLimiter(storage)
