"""Status: the position of each handler, its workers, and what needs attention."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from redis import Redis
from rq import Worker

from offhook import queues
from offhook.inbox import Inbox, keys, quarantine, refused
from offhook.inbox.apart import read_apart
from offhook.operations import dead_letters
from offhook.operations.running_files import about_running
from offhook.operations.server_check import check_all
from offhook.settings import Settings


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
        loaded: which files the running workers have not loaded as they are now, and which plugins
            they could not load, a sentence each.
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
    loaded: list[str]

    @property
    def problems(self) -> list[str]:
        """What needs attention, a sentence each."""
        return list(self._problems())

    def _problems(self) -> Iterator[str]:
        if not self.handlers:
            yield "no handler is configured: events are kept but not delivered"
        missing = [queue for queue, workers in self.workers.items() if not workers]
        if missing and len(missing) == len(self.workers):
            yield "no workers run: start `offhook work`"
        elif missing:
            yield f"no worker for {', '.join(missing)}: start `offhook work`"
        if self.handlers and not self.scheduler:
            yield "no scheduler: periodic jobs do not run; start `offhook work`"
        yield from self.loaded
        for queue, partitions in self.unserved.items():
            if self.workers.get(queue):
                numbers = ", ".join(map(str, partitions))
                yield f"{queue} does not serve partition {numbers}: see the log of `offhook work`"
        for handler in self.handlers:
            if handler.apart is not None:
                yield f"{handler.name} {handler.apart}: for now it runs in a process of its own"
            if handler.circuit is not None:
                yield (
                    f"{handler.name}'s target is down: its circuit is open, "
                    f"the next probe is in {handler.circuit:.0f} s"
                )
            if handler.dead:
                yield f"{handler.name} has dead letters: `offhook dead list` says why"
        for name, count in self.abandoned.items():
            letters = "1 dead letter" if count == 1 else f"{count} dead letters"
            yield f"{name} is no longer configured and has {letters}: `offhook dead list`"
        for name in self.leftover:
            yield (
                f"{name} is no longer configured but still has a position, which delays nothing: "
                f"`offhook forget {name}` deletes it"
            )
        if self.refused:
            refused = "1 callback was" if self.refused == 1 else f"{self.refused} callbacks were"
            yield f"{refused} refused: `offhook quarantine list` says why, `clear` deletes them"
        yield from self.risks
        yield from self.turned_away

    def as_dict(self) -> dict[str, Any]:
        """The status as plain JSON values."""
        return asdict(self) | {"problems": self.problems}


async def status(inbox: Inbox, rq: Redis, settings: Settings) -> Status:
    """The status of the installation with these settings."""
    names = list(settings.handlers)
    stored: Any = await inbox.redis.hgetall(keys.APART)
    apart = {name: each.reason for name, each in read_apart(stored).items() if name in names}
    pools = settings.pools | apart.keys()
    return Status(
        handlers=await _handlers(inbox, rq, settings, apart),
        partitions=[await inbox.length(partition) for partition in range(inbox.partitions)],
        workers=await asyncio.to_thread(_workers, rq, sorted(pools)),
        scheduler=bool(await inbox.redis.exists(keys.SCHEDULER)),
        unserved=await _unserved(inbox, sorted(pools)),
        abandoned=await asyncio.to_thread(_abandoned, rq, names),
        leftover=sorted(await inbox.known() - set(names)),
        refused=await quarantine.length(inbox.redis),
        risks=await asyncio.to_thread(check_all, settings),
        turned_away=await refused.sentences(inbox.redis),
        loaded=await asyncio.to_thread(about_running, rq, settings),
    )


async def _handlers(
    inbox: Inbox, rq: Redis, settings: Settings, apart: dict[str, str]
) -> list[HandlerStatus]:
    names = list(settings.handlers)
    states = [await inbox.states(names, number) for number in range(inbox.partitions)]
    waiting = await inbox.parked()
    dead = await asyncio.to_thread(dead_letters.counts, rq, names)
    return [
        HandlerStatus(
            name=name,
            lag=sum(each[name].lag for each in states),
            in_flight=sum(each[name].in_flight for each in states),
            waiting=waiting[name],
            delivered=sum(each[name].delivered for each in states),
            failed=sum(each[name].failed for each in states),
            dead=dead[name],
            circuit=await inbox.circuit_open_for(name),
            process=policy.process,
            apart=apart.get(name),
        )
        for name, policy in settings.handlers.items()
    ]


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


def _abandoned(rq: Redis, handlers: Sequence[str]) -> dict[str, int]:
    names = [name for name in queues.with_dead_letters(rq) if name not in handlers]
    return {name: count for name, count in dead_letters.counts(rq, names).items() if count}
