"""Status: the position of each handler, its workers, and what needs attention."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from redis import Redis
from rq import Worker

from offhook import queues
from offhook.connection import connect_rq
from offhook.inbox import Inbox, keys, quarantine, refused
from offhook.inbox.apart import read_apart
from offhook.inbox.handler_states import HandlerStates
from offhook.inbox.paused import Pause, paused_handlers
from offhook.operations import dead_letters
from offhook.operations.losses import losing, seconds_until_loss
from offhook.operations.processes import Process, running
from offhook.operations.running_files import newer_files
from offhook.operations.server_check import check_all
from offhook.settings import Settings, tenant_of_plugin


@dataclass(frozen=True)
class HandlerStatus:
    """One handler, summed over all partitions.

    Attributes:
        lag: events not yet read.
        in_flight: events read and not yet delivered or parked.
        waiting: calls whose events wait for a redelivery.
        delivered: total number of deliveries.
        failed: failed attempts that were or will be repeated.
        dead: current dead letters.
        circuit: seconds until the next probe if it is open, else None.
        process: where it should run, as in the settings.
        apart: why it runs in a process of its own all the same, in words; else None.
        paused: who paused it, and when; None: it is not paused.
    """

    name: str
    lag: int
    in_flight: int
    waiting: int
    delivered: int
    failed: int
    dead: int
    circuit: float | None
    process: str
    apart: str | None
    paused: Pause | None


@dataclass(frozen=True)
class RunningVersion:
    """What one process runs.

    Attributes:
        program: `offhook serve` or `offhook work`.
        version: of the configuration and, after a hyphen, of the plugins' code.
        loaded: when, in ISO 8601.
    """

    program: str
    host: str
    pid: int
    version: str
    loaded: str


@dataclass(frozen=True)
class Status:
    """The whole installation.

    Attributes:
        partitions: number of events in each, including delivered ones.
        workers: the names of each queue's workers, for the queues of the configuration.
        scheduler: whether one is running.
        unserved: the partitions that no process serves, by the queue whose workers should.
        abandoned: number of dead letters of each handler that is no longer configured.
        leftover: handlers that are no longer configured but still have a position.
        refused: callbacks in quarantine.
        turned_away: callbacks that receivers refused without keeping them, a sentence each.
        risks: why a Redis server cannot be used or may lose events, a sentence each.
        losing: handlers that get nothing now and begin to lose events, a sentence each.
        versions: what each process runs.
        loaded: which files the processes have not loaded as they are now, and which plugins they
            could not load, a sentence each.
    """

    handlers: list[HandlerStatus]
    partitions: list[int]
    workers: dict[str, list[str]]
    scheduler: bool
    unserved: dict[str, list[int]]
    abandoned: dict[str, int]
    leftover: list[str]
    refused: int
    risks: list[str]
    turned_away: list[str]
    losing: list[str]
    versions: list[RunningVersion]
    loaded: list[str]

    @property
    def problems(self) -> list[str]:
        """What needs attention, a sentence each."""
        return [
            *without_handlers(self),
            *missing_workers(self),
            *missing_scheduler(self),
            *different_versions(self),
            *self.loaded,
            *unserved_partitions(self),
            *running_apart(self),
            *paused(self),
            *open_circuits(self),
            *self.losing,
            *with_dead_letters(self),
            *abandoned_letters(self),
            *leftover_positions(self),
            *in_quarantine(self),
            *self.risks,
            *self.turned_away,
        ]

    def as_dict(self) -> dict[str, Any]:
        """The status as plain JSON values."""
        return asdict(self) | {"problems": self.problems}


def without_handlers(status: Status) -> Iterator[str]:
    """Whether no handler is configured."""
    if not status.handlers:
        yield "no handler is configured: events are kept but not delivered"


def missing_workers(status: Status) -> Iterator[str]:
    """The queues without a worker."""
    missing = [queue for queue, workers in status.workers.items() if not workers]
    if missing and len(missing) == len(status.workers):
        yield "no workers run: start `offhook work`"
    elif missing:
        yield f"no worker for {', '.join(missing)}: start `offhook work`"


def missing_scheduler(status: Status) -> Iterator[str]:
    """Whether no scheduler runs although one is needed."""
    if status.handlers and not status.scheduler:
        yield "no scheduler: periodic jobs do not run; start `offhook work`"


def different_versions(status: Status) -> Iterator[str]:
    """Whether processes run different versions."""
    found: dict[str, set[str]] = {}
    for each in status.versions:
        known = {name for name in found if name.startswith(each.version)}
        name = min(known, default=each.version)
        found.setdefault(name, set()).add(f"`{each.program}` on {each.host}")
    if len(found) > 1:
        what = "; ".join(f"{name}: {', '.join(sorted(who))}" for name, who in found.items())
        yield f"the processes run different versions: `offhook reload` makes them one ({what})"


def unserved_partitions(status: Status) -> Iterator[str]:
    """The partitions that no process serves although workers run."""
    for queue, partitions in status.unserved.items():
        if status.workers.get(queue):
            numbers = ", ".join(map(str, partitions))
            yield f"{queue} does not serve partition {numbers}: see the log of `offhook work`"


def running_apart(status: Status) -> Iterator[str]:
    """The handlers that were moved to a process of their own."""
    for handler in status.handlers:
        if handler.apart is not None:
            yield f"{handler.name} {handler.apart}: for now it runs in a process of its own"


def paused(status: Status) -> Iterator[str]:
    """The handlers that a person has paused."""
    for handler in status.handlers:
        if handler.paused is not None:
            yield (
                f"{handler.name} is paused by {handler.paused.by} since "
                f"{handler.paused.began:%Y-%m-%d %H:%M} UTC, {handler.lag:,} events wait: "
                f"`offhook handlers resume {handler.name}{_tenant_option(handler.name)}`"
            )


def open_circuits(status: Status) -> Iterator[str]:
    """The handlers whose target is down."""
    for handler in status.handlers:
        if handler.circuit is not None:
            yield (
                f"{handler.name}'s target is down: its circuit is open, "
                f"the next probe is in {handler.circuit:.0f} s"
            )


def with_dead_letters(status: Status) -> Iterator[str]:
    """The configured handlers that have dead letters."""
    for handler in status.handlers:
        if handler.dead:
            yield f"{handler.name} has dead letters: `offhook dead list` says why"


def abandoned_letters(status: Status) -> Iterator[str]:
    """The handlers that are no longer configured and have dead letters."""
    for name, count in status.abandoned.items():
        letters = "1 dead letter" if count == 1 else f"{count} dead letters"
        yield f"{name} is no longer configured and has {letters}: `offhook dead list`"


def leftover_positions(status: Status) -> Iterator[str]:
    """The handlers that are no longer configured and have a position."""
    for name in status.leftover:
        yield (
            f"{name} is no longer configured but still has a position, which delays nothing: "
            f"`offhook forget {name}{_tenant_option(name)}` deletes it"
        )


def _tenant_option(handler: str) -> str:
    tenant = tenant_of_plugin(handler)
    return f" --tenant {tenant}" if tenant else ""


def in_quarantine(status: Status) -> Iterator[str]:
    """Whether the quarantine has refused callbacks."""
    if status.refused:
        refused = "1 callback was" if status.refused == 1 else f"{status.refused} callbacks were"
        yield f"{refused} refused: `offhook quarantine list` says why, `clear` deletes them"


async def status(inbox: Inbox, rq: Redis, settings: Settings, tenant: str = "") -> Status:
    """The status of what is a tenant's; of the operator's, with that of the whole installation.

    Args:
        settings: the operator's.
    """
    processes = [] if tenant else await asyncio.to_thread(_processes, settings)
    its = settings.of(tenant)
    names = list(its.handlers)
    stored: Any = await inbox.redis.hgetall(keys.APART)
    apart = {name: each.reason for name, each in read_apart(stored).items() if name in names}
    pools = (its if tenant else settings).pools | apart.keys()
    handlers = await handler_statuses(inbox, rq, settings, apart, tenant)
    idle = [each.name for each in handlers if each.paused or each.circuit is not None]
    left = await seconds_until_loss(inbox, settings, _streams(settings, tenant, idle))
    return Status(
        handlers=handlers,
        partitions=[await inbox.length(each, tenant) for each in range(inbox.partitions)],
        workers=await asyncio.to_thread(_workers, rq, sorted(pools)),
        scheduler=bool(await inbox.redis.exists(keys.SCHEDULER)),
        unserved=await _unserved(inbox, sorted(pools)),
        abandoned=await asyncio.to_thread(_abandoned, rq, names, tenant),
        leftover=sorted(
            name
            for name in await inbox.known(tenant) - set(names)
            if tenant_of_plugin(name) == tenant
        ),
        refused=await quarantine.length(inbox.redis, tenant),
        risks=[] if tenant else await asyncio.to_thread(check_all, settings),
        turned_away=await refused.sentences(inbox.redis, tenant),
        losing=[*losing(left)],
        versions=[_version(each) for each in processes],
        loaded=[] if tenant else newer_files([each.loaded for each in processes], settings),
    )


def _processes(settings: Settings) -> list[Process]:
    with connect_rq(settings.redis_url, tries=3) as redis:
        found = running(redis)
    # Those with code first: a receiver's and a console's version is the first part of a worker's.
    return sorted(found, key=lambda each: len(each.loaded.version), reverse=True)


def _version(process: Process) -> RunningVersion:
    at = process.loaded
    return RunningVersion(at.program, at.host, at.pid, at.version, at.at)


async def handler_statuses(
    inbox: Inbox,
    rq: Redis,
    settings: Settings,
    apart: Mapping[str, str] | None = None,
    tenant: str = "",
) -> list[HandlerStatus]:
    """The status of each handler of a tenant.

    Args:
        settings: the operator's.
        apart: the handlers that run in a process of their own although they should not; None: they
            are read.
    """
    if apart is None:
        stored: Any = await inbox.redis.hgetall(keys.APART)
        apart = {name: each.reason for name, each in read_apart(stored).items()}
    its = settings.of(tenant)
    names = list(its.handlers)
    wanted = _streams(settings, tenant, names)
    reader = HandlerStates(inbox)
    found = [await reader.figures(wanted, number) for number in range(inbox.partitions)]
    states = [streams[tenant].handlers for streams in found]
    every = [stream.handlers for streams in found for stream in streams.values()]
    waiting = await reader.parked()
    dead = await asyncio.to_thread(dead_letters.counts, rq, names)
    pauses = await paused_handlers(inbox.redis)
    return [
        HandlerStatus(
            name=name,
            lag=sum(each[name].lag for each in every if name in each),
            in_flight=sum(each[name].in_flight for each in every if name in each),
            waiting=waiting[name],
            delivered=sum(each[name].delivered for each in states),
            failed=sum(each[name].failed for each in states),
            dead=dead[name],
            circuit=await reader.circuit_open_for(name),
            process=policy.process,
            apart=apart.get(name),
            paused=pauses.get(name),
        )
        for name, policy in its.handlers.items()
    ]


def _streams(settings: Settings, tenant: str, names: Sequence[str]) -> dict[str, Sequence[str]]:
    """The tenants whose events some handlers of a tenant get, each with these handlers."""
    found = {tenant: names}
    for other in () if tenant else settings.tenants:  # the operator's handlers may get others'
        if getting := [name for name in names if settings.handlers[name].gets(other)]:
            found[other] = getting
    return found


async def _unserved(inbox: Inbox, pools: Iterable[str]) -> dict[str, list[int]]:
    found = {}
    for pool in pools:
        numbers = [*range(inbox.partitions), *await inbox.leftover(pool)]
        async with inbox.redis.pipeline(transaction=False) as pipeline:
            for number in numbers:
                pipeline.exists(keys.serving(number, pool))
            served = await pipeline.execute()
        missing = [number for number, held in zip(numbers, served, strict=True) if not held]
        if missing:
            found[queues.serve_queue(pool)] = missing
    return found


def _workers(rq: Redis, pools: Sequence[str]) -> dict[str, list[str]]:
    names = [queues.serve_queue(pool) for pool in pools]
    if pools:  # otherwise nothing needs to run
        names.append(queues.SCHEDULED)
    return {
        name: sorted(worker.name for worker in Worker.all(queue=queues.queue(name, rq)))
        for name in names
    }


def _abandoned(rq: Redis, handlers: Sequence[str], tenant: str) -> dict[str, int]:
    names = [
        name
        for name in queues.with_dead_letters(rq)
        if name not in handlers and tenant_of_plugin(name) == tenant
    ]
    return {name: count for name, count in dead_letters.counts(rq, names).items() if count}
