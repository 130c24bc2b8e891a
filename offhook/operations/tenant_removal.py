"""Removal of a tenant: finds and deletes all that Redis keeps of it."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from redis import Redis

from offhook import queues
from offhook.inbox import Inbox, keys, quarantine
from offhook.operations import dead_letters
from offhook.operations.dead_letters import DeadLetter
from offhook.settings import tenant_of_plugin

_PAGE = 1000
# Keys that end in the tenant: of a partition, of the installation, and of a PBX.
OF_PARTITION = (
    *(keys.inbox, keys.last, keys.known, keys.behind, keys.replays, keys.calls, keys.indexed),
    *(keys.recorded, keys.failures),
)
OF_INSTALLATION = (
    *(keys.quarantine, keys.refused, keys.daily_summary, keys.audit),
    *(keys.wall_links, keys.last_seen),
)
OF_PBX = (keys.phones, keys.reconciled, keys.proof)
OF_NUMBER = (keys.calling,)
# Keys of a partition that have the tenant in their name, and then something else.
OF_TERM = (keys.index,)
# Keys that end in a pool.
_OF_POOL = (
    *(keys.serving, keys.flushed, keys.ready, keys.unfinished, keys.read, keys.due),
    keys.redelivering,
)


@dataclass
class TenantData:
    """How much is kept of a tenant."""

    events: int
    calls: int
    dead_letters: int
    refused: int


async def tenants_with_events(inbox: Inbox) -> set[str]:
    """The tenants that have ever had an event, configured or not."""
    found: set[str] = set()
    for partition in range(inbox.partitions):
        found.update(await inbox.tenants(partition))
    return found - {""}


async def kept(inbox: Inbox, rq: Redis, tenant: str) -> TenantData:
    """How much is kept of a tenant."""
    async with inbox.redis.pipeline(transaction=False) as pipeline:
        for partition in range(inbox.partitions):
            pipeline.xlen(keys.inbox(partition, tenant))
            pipeline.zcard(keys.calls(partition, tenant))
        counts = await pipeline.execute()
    handlers = await asyncio.to_thread(_handlers, rq, tenant)
    dead = await asyncio.to_thread(dead_letters.counts, rq, handlers)
    refused = await quarantine.length(inbox.redis, tenant)
    return TenantData(sum(counts[::2]), sum(counts[1::2]), sum(dead.values()), refused)


async def remove(inbox: Inbox, rq: Redis, tenant: str) -> None:
    """Delete all that is kept of a tenant. What still runs for it may write some of it again."""
    await asyncio.to_thread(_remove_from_rq, rq, tenant)
    for partition in [*range(inbox.partitions), *await inbox.beyond()]:
        await _remove_from_partition(inbox.redis, partition, tenant)
    plugins = f"{tenant}/*"
    patterns = [
        *(make("*", tenant) for make in (*OF_PBX, *OF_NUMBER)),
        keys.circuit(plugins),
        keys.servers(plugins),
        keys.memory(plugins, "*"),
        keys.memory(f"lookups.{plugins}", "*"),
        keys.lookup_name(plugins, "*"),
        keys.lookup_asking(plugins, "*"),
        keys.lookup_failures(plugins),
    ]
    doomed = [make(tenant).encode() for make in OF_INSTALLATION]
    await _delete(inbox.redis, [*doomed, *await _matching(inbox.redis, patterns)])
    for table in (keys.APART, keys.DEATHS, keys.PAUSED):
        fields: Any = await inbox.redis.hkeys(table)
        if mine := [each for each in fields if each.startswith(f"{tenant}/".encode())]:
            await inbox.redis.hdel(table, *mine)
    registered: Any = await inbox.redis.hkeys(keys.REGISTERED)
    if theirs := [each for each in registered if each.endswith(f"/{tenant}".encode())]:
        await inbox.redis.hdel(keys.REGISTERED, *theirs)


async def _remove_from_partition(redis: redis.asyncio.Redis, number: int, tenant: str) -> None:
    of_call, of_handler = f"{tenant}:".encode(), f"{tenant}/".encode()
    parked: Any = await redis.hkeys(keys.parked(number))
    lanes = [
        each
        for each in parked
        if each.startswith(of_handler) or each.partition(b" ")[2].startswith(of_call)
    ]
    calls: Any = await redis.zrange(keys.calls(number, tenant), 0, -1)
    doomed = [make(number, tenant) for make in OF_PARTITION]
    doomed += [keys.call(number, call.decode()) for call in calls]
    doomed += [keys.lane(number, *lane.decode().split(" ", 1)) for lane in lanes]
    patterns = [make(number, f"{tenant}/*") for make in _OF_POOL]
    patterns += [make(number, "*", tenant) for make in OF_TERM]
    patterns += [keys.counts(number, f"{tenant}/*"), keys.seen(number, f"{tenant}:*")]
    patterns += [keys.tried(number, f"{tenant}:*")]
    matching = await _matching(redis, patterns)
    live: Any = await redis.zrange(keys.live(number), 0, -1)
    settling: Any = await redis.zrange(keys.settling(number), 0, -1)
    staying: Any = await redis.smembers(keys.staying(number))
    owners: Any = await redis.hkeys(keys.owners(number))
    prefix = len(keys.read(number, "_")) - 1
    pools = [key[prefix:].decode() for key in await _matching(redis, [keys.read(number, "*")])]
    async with redis.pipeline(transaction=False) as pipeline:
        for pool in ("", *pools):
            pipeline.srem(keys.unfinished(number, pool), tenant)
            pipeline.zrem(keys.ready(number, pool), tenant)
            pipeline.hdel(keys.read(number, pool), tenant)
            for lane in lanes:
                pipeline.zrem(keys.due(number, pool), lane)
                pipeline.srem(keys.redelivering(number, pool), lane)
        pipeline.hdel(keys.folded(number), tenant)
        for lane in lanes:
            pipeline.hdel(keys.parked(number), lane)
            pipeline.hdel(keys.attempts(number), lane)
        for name in live:
            if name.startswith(of_call):
                pipeline.zrem(keys.live(number), name)
        for name in settling:
            if name.startswith(of_call):
                pipeline.zrem(keys.settling(number), name)
        for name in staying:
            if name.startswith(of_call):
                pipeline.srem(keys.staying(number), name)
        for name in owners:
            if name.startswith(of_handler):
                pipeline.hdel(keys.owners(number), name)
        await pipeline.execute()
    await _delete(redis, [*(each.encode() for each in doomed), *matching])


def _remove_from_rq(rq: Redis, tenant: str) -> None:
    dead_letters.discard(rq, _letters(rq, tenant))
    queues.delete_of_tenant(rq, tenant)


def _letters(rq: Redis, tenant: str) -> list[DeadLetter]:
    """The tenant's dead letters, and those of the operator's handlers that are of its events."""
    return [
        letter
        for letter in dead_letters.find(rq)
        if tenant in (letter.event.tenant, tenant_of_plugin(letter.handler))
    ]


def _handlers(rq: Redis, tenant: str) -> list[str]:
    return [each for each in queues.with_dead_letters(rq) if tenant_of_plugin(each) == tenant]


async def _matching(redis: redis.asyncio.Redis, patterns: Iterable[str]) -> list[bytes]:
    return [key for pattern in patterns async for key in redis.scan_iter(pattern, count=_PAGE)]


async def _delete(redis: redis.asyncio.Redis, names: list[bytes]) -> None:
    for at in range(0, len(names), _PAGE):
        await redis.delete(*names[at : at + _PAGE])
