"""How many callbacks and connections the receivers accepted and refused, by cause.

Those refused in the last day, for `offhook status`; all of them, for metrics.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from redis.asyncio import Redis

from offhook.inbox import keys

_KEEP = 24 * 3600  # seconds from the first one


class Cause(StrEnum):
    """Why a receiver refused something without keeping it in the quarantine."""

    WRONG_TOKEN = "wrong_token"  # noqa: S105 - no token
    ADDRESS = "address"
    URL_RATE = "url_rate"
    TENANT_RATE = "tenant_rate"
    SOURCE_RATE = "source_rate"
    SHARE = "share"
    TENANT_SHARE = "tenant_share"
    CONNECTIONS = "connections"


class CallbackOutcome(StrEnum):
    """What else became of a callback."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    UNAVAILABLE = "unavailable"  # neither Redis nor the journal took it
    QUARANTINED = "quarantined"
    JOURNALED = "journaled"  # accepted, and kept on disk first


SENTENCES: Mapping[str, str] = {
    Cause.WRONG_TOKEN: "callbacks with a wrong token: was the secret changed, or a URL revoked?",
    Cause.ADDRESS: "callbacks from addresses that are not in `allowed_addresses`",
    Cause.URL_RATE: "callbacks above the `url_rate` of their URL",
    Cause.TENANT_RATE: "callbacks above the `limits.rate` of their tenant",
    Cause.SOURCE_RATE: "requests above the `source_rate` of their address",
    Cause.SHARE: "callbacks of an extension that has used up its share of the inbox or journal",
    Cause.TENANT_SHARE: "callbacks of a tenant that has used up its `limits.share` of a store",
    Cause.CONNECTIONS: "connections, because too many were open",
}


async def add(redis: Redis, counts: Mapping[str, int], tenant: str = "") -> None:
    """Add to the counts.

    Args:
        counts: `Cause` or `CallbackOutcome` -> number.
    """
    name = keys.refused(tenant)
    async with redis.pipeline(transaction=False) as pipeline:
        for cause, count in counts.items():
            pipeline.hincrby(keys.RECEIVED, cause, count)
            if cause in SENTENCES:
                pipeline.hincrby(name, cause, count)
        pipeline.expire(name, _KEEP, nx=True)
        await pipeline.execute()


async def totals(redis: Redis) -> dict[str, int]:
    """How many there ever were of each `Cause` and `CallbackOutcome`, of all tenants."""
    counts: Any = await redis.hgetall(keys.RECEIVED)
    return {
        name: int(counts.get(name.encode(), 0))
        for name in (*map(str, CallbackOutcome), *map(str, Cause))
    }


async def sentences(redis: Redis, tenant: str = "") -> list[str]:
    """What receivers have refused since at most a day, a sentence for each cause."""
    counts: Any = await redis.hgetall(keys.refused(tenant))
    return [
        f"refused: {int(count)} {SENTENCES[name]}"
        for cause, count in sorted(counts.items())
        if (name := cause.decode()) in SENTENCES
    ]
