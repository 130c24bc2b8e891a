"""`Figures`: what metrics say about an installation, read from Redis in small steps.

A web process reads them beside its callbacks, so no step keeps it or the server busy for long.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from redis.asyncio import Redis

from offhook import queues
from offhook.inbox import HandlerState, Inbox, keys, refused
from offhook.inbox.handler_states import HandlerStates
from offhook.inbox.latency import Histogram
from offhook.inbox.leases import LEASE_MS
from offhook.inbox.paused import paused_handlers
from offhook.operations.last_diagnosis import LastDiagnosis, last_diagnosis
from offhook.redis_servers import answers, memory
from offhook.settings import Settings, tenant_of_plugin

_ALIVE = LEASE_MS / 1000  # seconds since the last sign of life of a process that serves handlers


@dataclass
class HandlerFigures:
    """One handler, summed over all partitions.

    Attributes:
        lag: number of events that it has not read.
        since: when the first event was accepted that it has not finished, in milliseconds since
            1970; 0 without any.
        dead_letters: those that are kept now.
    """

    lag: int = 0
    in_flight: int = 0
    since: int = 0
    delivered: int = 0
    failed: int = 0
    dead: int = 0
    circuit_open: bool = False
    paused: bool = False
    dead_letters: int = 0

    def add(self, state: HandlerState, *, counts: bool) -> None:
        """Add what one of its streams says.

        Args:
            counts: also the attempts. Those of all its tenants are in the state of each.
        """
        self.lag += state.lag
        self.in_flight += state.in_flight
        if state.since:
            self.since = min(self.since or state.since, state.since)
        if counts:
            self.delivered += state.delivered
            self.failed += state.failed
            self.dead += state.dead

    def lag_seconds(self, now: float) -> float:
        """Seconds since the first event was accepted that it has not finished."""
        return max(0.0, now - self.since / 1000) if self.since else 0.0


@dataclass
class Figures:
    """The whole installation.

    Attributes:
        now: on the server's clock, in seconds since 1970.
        received: `Cause` or `CallbackOutcome` -> number of callbacks.
        events: number of events that were ever appended.
        kept: number of events in the inbox.
        parked: number of calls whose events wait for a redelivery.
        live: number of calls that are not closed.
        phones: PBX -> number of extensions with registered phones, and of others.
        serving: queue -> number of processes that serve its handlers.
        unserved: queue -> number of partitions that no process serves.
        memory: bytes that the server uses, and its limit; 0: without one.
    """

    now: float
    received: Mapping[str, int]
    quarantined: int
    extensions: int
    phones: Mapping[str, tuple[int, int]]
    scheduler: bool
    memory: tuple[int, int]
    diagnosis: LastDiagnosis | None
    handlers: Mapping[str, HandlerFigures]
    latency: Histogram
    events: int = 0
    kept: int = 0
    parked: int = 0
    live: int = 0
    serving: dict[str, int] = field(default_factory=dict)
    unserved: dict[str, int] = field(default_factory=dict)


async def read_figures(inbox: Inbox, rq: Redis, settings: Settings) -> Figures:
    """Read the figures of the handlers and pools in the configuration.

    Args:
        rq: a client of RQ's server.

    Raises:
        RedisError: a server does not answer.
    """
    redis = inbox.redis
    await inbox.numbering.load()
    numbers = range(inbox.partitions)
    figures = Figures(
        now=await _now(redis),
        received=await refused.totals(redis),
        quarantined=sum(
            await answers(redis, [("XLEN", keys.quarantine(t)) for t in ("", *settings.tenants)])
        ),
        extensions=await _called(redis.hlen(keys.EXTENSIONS)),
        phones=await _phones(redis, settings),
        scheduler=bool(await redis.exists(keys.SCHEDULER)),
        memory=await memory(redis),
        diagnosis=await last_diagnosis(redis),
        handlers={name: HandlerFigures() for name in settings.all_handlers},
        latency=Histogram.of(
            [await _called(redis.hgetall(keys.latency(number))) for number in numbers]
        ),
    )
    handlers = {each: [*settings.handlers_for(each)] for each in ("", *settings.tenants)}
    for number in numbers:
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.hlen(keys.parked(number))
            pipeline.zcard(keys.live(number))
            parked, live = await pipeline.execute()
        figures.parked += parked
        figures.live += live
        for tenant, stream in (await HandlerStates(inbox).figures(handlers, number)).items():
            figures.events += stream.last
            figures.kept += stream.length
            for name, state in stream.handlers.items():
                figures.handlers[name].add(state, counts=tenant_of_plugin(name) == tenant)
    await _add_trouble(redis, rq, figures.handlers)
    for name in (await paused_handlers(redis)).keys() & figures.handlers.keys():
        figures.handlers[name].paused = True
    apart: Any = await redis.hkeys(keys.APART)
    for pool in settings.pools | {name.decode() for name in apart} & {*settings.all_handlers}:
        queue = queues.serve_queue(pool)
        alive = (figures.now - _ALIVE, figures.now + _ALIVE)
        figures.serving[queue] = await redis.zcount(keys.servers(pool), *alive)
        served = await answers(
            redis, [("EXISTS", keys.serving(number, pool)) for number in numbers]
        )
        figures.unserved[queue] = len(served) - sum(served)
    return figures


async def _add_trouble(redis: Redis, rq: Redis, found: Mapping[str, HandlerFigures]) -> None:
    # Without a failure there is neither an open circuit nor a dead letter.
    troubled = [name for name, one in found.items() if one.failed or one.dead]
    opened = await answers(redis, [("EXISTS", keys.circuit(name)) for name in troubled])
    dead = await answers(rq, [("ZCARD", queues.dead_key(name)) for name in troubled])
    for name, is_open, letters in zip(troubled, opened, dead, strict=True):
        found[name].circuit_open = bool(is_open)
        found[name].dead_letters = letters


async def _now(redis: Redis) -> float:
    seconds, microseconds = await redis.time()
    return float(seconds + microseconds / 1e6)


async def _phones(redis: Redis, settings: Settings) -> dict[str, tuple[int, int]]:
    stored: Any = await _called(redis.hgetall(keys.REGISTERED))
    found: dict[str, tuple[int, int]] = {}
    for name, value in stored.items():
        pbx = name.decode().partition("/")[0]
        if pbx in settings.pbx:
            registered, others = msgspec.json.decode(value, type=tuple[int, int])
            before = found.get(pbx, (0, 0))
            found[pbx] = (before[0] + registered, before[1] + others)
    return found


async def _called(command: Any) -> Any:
    """The answer to a command whose type redis-py leaves open."""
    return await command
