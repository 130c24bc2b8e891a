"""Settings of the Redis server that put events at risk; reported at every start."""

from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from offhook.redis_url import without_password
from offhook.settings import Settings

OLDEST = (7, 2)  # the first version of Redis, and of Valkey, with WAITAOF


def risks(redis: Redis, settings: Settings, url: str | None = None) -> list[str]:
    """A sentence for each setting that can lose events, with the right value.

    Args:
        url: of the server, if it is not the inbox's: it has only dead letters to lose.
    """
    # INFO where it says enough, because managed servers often forbid CONFIG.
    memory: Any = redis.info("memory")
    persistence: Any = redis.info("persistence")
    server = f"the server {without_password(url or settings.redis_url)}"
    found = []
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(
            f"{server} deletes events when its memory is full "
            f"(maxmemory-policy {policy}): set maxmemory-policy to noeviction"
        )
    if not persistence.get("aof_enabled", 1):
        found.append(
            f"{server} loses events when it restarts (appendonly no): set appendonly to yes"
        )
    synced = _appendfsync(redis)
    if synced == "no":
        found.append(
            f"{server} loses events when its machine fails (appendfsync no): "
            "set appendfsync to always, or to everysec if the last second may be lost"
        )
    if url is None and settings.durability == "replica" and settings.replicas:
        replication: Any = redis.info("replication")
        connected = replication.get("connected_slaves", 0)
        if connected < settings.replicas:
            found.append(
                f"{server} has {connected} of the {settings.replicas} replicas that must have an "
                "event (replicas): every event goes to the journal until it has them all"
            )
        elif connected > settings.replicas:
            found.append(
                f"{server} has {connected} replicas, and only {settings.replicas} of them must "
                "have an event: a failover to another one loses events; "
                f"set replicas to {connected}"
            )
    return found


def unseen(redis: Redis) -> list[str]:
    """A sentence for each setting that matters and that the server does not show."""
    if _appendfsync(redis) is None:
        return [
            "the server does not let Offhook read its appendfsync: "
            "make sure that it is always, or everysec"
        ]
    return []


def is_too_old(version: str) -> bool:
    """Return whether a version such as 7.0.15 is older than we need; Valkey says 7.2.4."""
    numbers = version.split(".")[:2]
    return all(map(str.isdigit, numbers)) and tuple(map(int, numbers)) < OLDEST


def _appendfsync(redis: Redis) -> str | None:
    """When the server syncs its append-only file; None if it does not say. INFO never does."""
    try:
        found: Any = redis.config_get("appendfsync")
    except ResponseError:  # forbidden by an ACL, or no such command
        return None
    synced: str | None = found.get("appendfsync")
    return synced
