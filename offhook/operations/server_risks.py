"""Settings of the Redis server that put events at risk; reported at every start."""

from typing import Any

from redis import Redis

from offhook.redis_url import without_password
from offhook.settings import Settings


def risks(redis: Redis, settings: Settings) -> list[str]:
    """A sentence for each setting that can lose events, with the right value."""
    # INFO, because managed servers often forbid CONFIG.
    memory: Any = redis.info("memory")
    persistence: Any = redis.info("persistence")
    server = f"the server {without_password(settings.redis_url)}"
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
    if settings.durability == "replica":
        replication: Any = redis.info("replication")
        if not replication.get("connected_slaves", 0):
            found.append(
                f'{server} has no replica, and durability is "replica": '
                "every event goes to the journal until it has one"
            )
    return found
