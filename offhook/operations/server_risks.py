"""Settings of the Redis server that put events at risk; reported at every start."""

from collections.abc import Mapping
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from offhook.redis_servers.redis_url import without_password
from offhook.settings import Settings

OLDEST = (7, 2)  # the first version of Redis, and of Valkey, with WAITAOF


def risks(
    redis: Redis, settings: Settings, url: str | None = None, *, has_inbox: bool = True
) -> list[str]:
    """A sentence for each setting that can lose events, with the right value.

    Args:
        url: of the server, if it is not `redis_url`.
        has_inbox: whether it has part of the inbox, or only dead letters to lose.
    """
    # INFO where it says enough, because managed servers often forbid CONFIG.
    memory: Any = redis.info("memory")
    persistence: Any = redis.info("persistence")
    found = [eviction(memory), volatility(persistence), unsynced(appendfsync(redis))]
    if has_inbox and settings.durability == "replica":
        replication: Any = redis.info("replication")
        found.append(replicas_risk(replication, settings))
    server = f"the server {without_password(url or settings.redis_url)}"
    return [f"{server} {each}" for each in found if each]


# Each of these takes a section of INFO. They return the rest of a sentence that begins with the
# server's name, or an empty text if there is no risk.


def eviction(memory: Mapping[str, Any]) -> str:
    """Whether the server drops events when it is full."""
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return ""
    return (
        f"deletes events when its memory is full (maxmemory-policy {policy}): "
        "set maxmemory-policy to noeviction"
    )


def volatility(persistence: Mapping[str, Any]) -> str:
    """Whether the server has no append-only file."""
    if persistence.get("aof_enabled", 1):
        return ""
    return "loses events when it restarts (appendonly no): set appendonly to yes"


def unsynced(synced: str | None) -> str:
    """Whether the server never syncs its append-only file; see `appendfsync`."""
    if synced != "no":
        return ""
    return (
        "loses events when its machine fails (appendfsync no): "
        "set appendfsync to always, or to everysec if the last second may be lost"
    )


def replicas_risk(replication: Mapping[str, Any], settings: Settings) -> str:
    """Whether the server has another number of replicas than `replicas` says."""
    connected, wanted = replication.get("connected_slaves", 0), settings.replicas or 0
    if connected < wanted:
        return (
            f"has {connected} of the {wanted} replicas that must have an "
            "event (replicas): every event goes to the journal until it has them all"
        )
    if connected > wanted:
        return (
            f"has {connected} replicas, and only {wanted} of them must "
            "have an event: a failover to another one loses events; "
            f"set replicas to {connected}"
        )
    return ""


def unseen(redis: Redis) -> list[str]:
    """A sentence for each setting that matters and that the server does not show."""
    if appendfsync(redis) is None:
        return [f"the server {UNSEEN_SYNC}"]
    return []


UNSEEN_SYNC = "does not let Offhook read its appendfsync: make sure that it is always, or everysec"


def is_too_old(version: str) -> bool:
    """Return whether a version such as 7.0.15 is older than we need; Valkey says 7.2.4."""
    numbers = version.split(".")[:2]
    return all(map(str.isdigit, numbers)) and tuple(map(int, numbers)) < OLDEST


def appendfsync(redis: Redis) -> str | None:
    """When the server syncs its append-only file; None if it does not say. INFO never does."""
    try:
        found: Any = redis.config_get("appendfsync")
    except ResponseError:  # forbidden by an ACL, or no such command
        return None
    synced: str | None = found.get("appendfsync")
    return synced
