"""Status: the position of each handler, its workers, and what needs attention."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from redis import Redis
from rq import Worker
from rq.scheduler import RQScheduler

from offhook import queues
from offhook.inbox import CALL_LOG, Inbox, quarantine
from offhook.operations import dead_letters
from offhook.operations.server_check import check
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
        circuit: seconds until the next probe if it is open in any partition, else None.
    """

    name: str
    lag: int
    in_flight: int
    waiting: int
    delivered: int
    failed: int
    dead: int
    circuit: float | None


@dataclass(frozen=True)
class Status:
    """The whole installation.

    Attributes:
        partitions: number of events in each, including delivered ones.
        workers: the names of each queue's workers, for the queues of the configuration.
        scheduler: whether one is running.
        abandoned: number of dead letters of each handler that is no longer configured.
        leftover: handlers that are no longer configured but still have a cursor.
        refused: callbacks in quarantine.
        risks: why the Redis server cannot be used or may lose events, a sentence each.
    """

    handlers: list[HandlerStatus]
    partitions: list[int]
    workers: dict[str, list[str]]
    scheduler: bool
    abandoned: dict[str, int]
    leftover: list[str]
    refused: int
    risks: list[str]

    @property
    def problems(self) -> list[str]:
        """What needs attention, a sentence each."""
        return list(self._problems())

    def _problems(self) -> Iterator[str]:
        if not self.handlers:
            yield "no handler is configured: events are kept but not delivered"
        unserved = [queue for queue, workers in self.workers.items() if not workers]
        if unserved and len(unserved) == len(self.workers):
            yield "no workers run: start `offhook work`"
        elif unserved:
            yield f"no worker for {', '.join(unserved)}: start `offhook work`"
        if self.handlers and not self.scheduler:
            yield "no scheduler: redeliveries are not sent; start `offhook work`"
        for handler in self.handlers:
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
                f"{name} is no longer configured but still has a cursor, which delays nothing: "
                f"`offhook forget {name}` deletes it"
            )
        if self.refused:
            refused = "1 callback was" if self.refused == 1 else f"{self.refused} callbacks were"
            yield f"{refused} refused: `offhook quarantine list` says why, `clear` deletes them"
        yield from self.risks

    def as_dict(self) -> dict[str, Any]:
        """The status as plain JSON values."""
        return asdict(self) | {"problems": self.problems}


async def status(inbox: Inbox, rq: Redis, settings: Settings) -> Status:
    """The status of the installation with these settings."""
    handlers = list(settings.handlers)
    return Status(
        handlers=[await _handler(inbox, rq, name) for name in handlers],
        partitions=[await inbox.length(partition) for partition in range(inbox.partitions)],
        workers=await asyncio.to_thread(_workers, rq, handlers, inbox.partitions),
        scheduler=await asyncio.to_thread(_scheduler, rq, handlers),
        abandoned=await asyncio.to_thread(_abandoned, rq, handlers),
        leftover=sorted(await inbox.cursors() - set(settings.cursors)),
        refused=await quarantine.length(inbox.redis),
        risks=await asyncio.to_thread(check, rq, settings),
    )


async def _handler(inbox: Inbox, rq: Redis, name: str) -> HandlerStatus:
    states = [await inbox.state(name, partition) for partition in range(inbox.partitions)]
    probes = [state.circuit_open for state in states if state.circuit_open is not None]
    return HandlerStatus(
        name=name,
        lag=sum(state.lag for state in states),
        in_flight=sum(state.in_flight for state in states),
        waiting=sum(state.lanes for state in states),
        delivered=sum(state.delivered for state in states),
        failed=sum(state.failed for state in states),
        dead=await asyncio.to_thread(dead_letters.count, rq, name),
        circuit=min(probes, default=None),
    )


def _workers(rq: Redis, handlers: Sequence[str], partitions: int) -> dict[str, list[str]]:
    names = [
        name
        for handler in handlers
        for name in (
            *(queues.dispatch_queue(handler, partition) for partition in range(partitions)),
            queues.redeliver_queue(handler),
        )
    ]
    if handlers:  # otherwise nothing needs to run
        names += [queues.dispatch_queue(CALL_LOG, partition) for partition in range(partitions)]
        names.append(queues.SCHEDULED)
    return {
        name: sorted(worker.name for worker in Worker.all(queue=queues.queue(name, rq)))
        for name in names
    }


def _scheduler(rq: Redis, handlers: Sequence[str]) -> bool:
    """A scheduler holds a lock for the redeliveries of each handler."""
    locks = [RQScheduler.get_locking_key(queues.redeliver_queue(name)) for name in handlers]
    return bool(locks) and rq.exists(*locks) == len(locks)


def _abandoned(rq: Redis, handlers: Sequence[str]) -> dict[str, int]:
    names = [name for name in queues.with_redeliveries(rq) if name not in handlers]
    return {name: count for name in names if (count := dead_letters.count(rq, name))}
