"""The scheduler: sends redeliveries when they are due, and finds what nobody woke.

One process of its own. All it does may be done twice, so several may run.
"""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from redis import Redis
from redis.exceptions import RedisError
from rq import Worker
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer

from offhook import queues
from offhook.connection import connect, connect_rq
from offhook.event import EventType
from offhook.inbox import CALL_LOG, Inbox, ParkedLanes
from offhook.inbox.call_store import Calls
from offhook.logs import Outage
from offhook.plugins import wanted_types
from offhook.settings import Settings

log = logging.getLogger("offhook.scheduler")

EVERY = 1.0  # seconds: redeliveries that are due, cursors that nobody serves
LANES_EVERY = 2.0  # seconds: parked lanes without a job
TRIM_EVERY = 60.0  # seconds: events older than `keep_days`
TIGHT = 0.8  # of the server's memory in use, then delivered events go before `keep_days`
LOCKED_FOR = 5  # seconds after a scheduler's death until another one sends its redeliveries
SET_BACK = 2.0  # seconds; a clock that loses less at once was not set back

PHONES = {EventType.PHONE_REGISTERED, EventType.PHONE_UNREGISTERED}

# What is done at its time: the job, seconds from one run to the next, and who needs it.
JOBS: tuple[tuple[str, float, Callable[[Settings], bool]], ...] = (
    ("workers.reconcile.job.reconcile", 3600.0, lambda settings: _has_api(settings)),
    (
        "workers.phones.watch_phones",
        60.0,
        lambda settings: (
            _has_api(settings) and not PHONES.isdisjoint(wanted_types(settings.handlers))
        ),
    ),
    (
        "workers.silence.listen",
        3600.0,
        lambda settings: EventType.EXTENSION_SILENT in wanted_types(settings.handlers),
    ),
    ("workers.daily_summary.summary", 60.0, lambda settings: settings.daily_summary is not None),
)


def _has_api(settings: Settings) -> bool:
    return any(pbx.host is not None for pbx in settings.pbx.values())


def run(settings: Settings) -> None:
    """Run until SIGTERM."""
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    redis, rq = connect(settings.redis_url), connect_rq(settings.redis_url)
    scheduler = Scheduler(settings, Inbox(redis, settings.partitions), rq)
    outage = Outage(log, "Redis")
    try:
        while not stop.is_set():
            try:
                await scheduler.round()
                outage.is_over()
            except RedisError as error:
                outage.goes_on(error)
            try:
                await asyncio.wait_for(stop.wait(), EVERY)
            except TimeoutError:
                continue
    finally:
        try:
            await asyncio.to_thread(scheduler.release)
        except RedisError as error:
            log.warning("the scheduler's locks run out by themselves: %s", error)
        await redis.aclose()
        rq.close()


class Scheduler:
    """What is done now and then, for all handlers."""

    def __init__(self, settings: Settings, inbox: Inbox, rq: Redis) -> None:
        self._settings = settings
        self._inbox = inbox
        self._rq = rq
        self._rq_scheduler = RQScheduler(
            [queues.redeliver_queue(name) for name in settings.handlers],
            rq,
            logging_level=logging.WARNING,
            serializer=JSONSerializer,
            name=f"offhook-{socket.gethostname()}-{os.getpid()}",
        )
        # It would make a connection of its own, and not through Sentinels.
        self._rq_scheduler._connection = rq  # type: ignore[assignment]
        self._lanes_at = self._trim_at = 0.0
        self._beyond: list[int] = []  # partitions from when there were more of them
        self._clock = _clock()
        self._suspects: set[tuple[str, str]] = set()
        self._calls = Calls(inbox)
        self._jobs = [(job, every) for job, every, needed in JOBS if needed(settings)]

    async def round(self) -> None:
        """Do what is due."""
        names = list(self._settings.handlers)
        cursors = list(self._settings.cursors)
        # First of all: a server without room takes nothing of what follows.
        if await self._inbox.memory_used() > TIGHT:
            await self.make_room(cursors)
        for name, start in self._settings.cursors.items():
            await self._inbox.ensure_cursor(name, start)
        await self.wake_sleepers(cursors)
        await self.wake_calls()
        await asyncio.to_thread(self._enqueue_due)
        await asyncio.to_thread(self.call_scheduled)
        now = time.monotonic()
        if now >= self._lanes_at:
            self._lanes_at = now + LANES_EVERY
            await self.revive_lanes(names)
        if now >= self._trim_at:
            self._trim_at = now + TRIM_EVERY
            self._beyond = await self._inbox.beyond()
            await self.trim(cursors)
            await self.tell_unserved(cursors)

    @property
    def _partitions(self) -> list[int]:
        return [*range(self._settings.partitions), *self._beyond]

    async def wake_sleepers(self, names: Sequence[str]) -> None:
        """Call a dispatch for every cursor that is behind and that none serves."""
        for name in names:
            for partition in self._partitions:
                if await self._inbox.behind(name, partition):
                    await asyncio.to_thread(queues.wake, self._rq, name, partition)

    async def wake_calls(self) -> None:
        """See to it that calls are ended, also when no event comes any more."""
        before = datetime.now(UTC) - timedelta(seconds=self._settings.call_timeout)
        for partition in range(self._settings.partitions):
            if await self._calls.neglected(partition, before):
                await asyncio.to_thread(queues.wake, self._rq, CALL_LOG, partition)

    async def revive_lanes(self, names: Sequence[str]) -> None:
        """Enqueue the redelivery of every parked lane that has none: its process died in between.

        A lane is suspected in one round and revived in the next, so that a redelivery on its way
        is not doubled.
        """
        found: set[tuple[str, str]] = set()
        for name in names:
            lanes = ParkedLanes(self._inbox, name)
            known = await asyncio.to_thread(queues.redeliveries, self._rq, name)
            for partition in self._partitions:
                for lane, event_id in (await lanes.parked(partition)).items():
                    if queues.redelivery_id(name, event_id) in known:
                        continue
                    if (name, event_id) not in self._suspects:
                        found.add((name, event_id))
                        continue
                    event = await lanes.head(partition, lane)
                    if event is not None and event.id == event_id:
                        log.warning("lane %s of %s is revived", lane, name)
                        await asyncio.to_thread(queues.revive, self._rq, name, event)
        self._suspects = found

    async def trim(self, names: Sequence[str]) -> None:
        """Forget delivered events older than `keep_days`, and all that `max_events` forbids."""
        before = datetime.now(UTC) - timedelta(days=self._settings.keep_days)
        for partition in self._partitions:
            forgotten = await self._inbox.trim(partition, before, names)
            if forgotten:
                log.info("forgot %s delivered events of partition %s", forgotten, partition)
        if self._settings.max_events is None:
            return
        most = self._settings.max_events // self._settings.partitions
        for partition in range(self._settings.partitions):
            for name, lost in (await self._inbox.cut(partition, most, names)).items():
                log.error(
                    "the inbox is full (max_events %s): %s will never get %s events of it",
                    self._settings.max_events,
                    name,
                    lost,
                )

    async def tell_unserved(self, names: Sequence[str]) -> None:
        """Say which events of a partition from when there were more of them nobody delivers."""
        for partition in self._beyond:
            for name in names:
                queue = queues.queue(queues.dispatch_queue(name, partition), self._rq)
                if not await self._inbox.unfinished([name], partition):
                    continue
                if not await asyncio.to_thread(Worker.count, queue=queue):
                    log.error(
                        "partition %s, from before `partitions` was lowered, has events for %s "
                        "that nobody delivers: start `offhook work` again, it does",
                        partition,
                        name,
                    )

    async def make_room(self, names: Sequence[str]) -> None:
        """Forget all delivered events, so that the receiver need not turn to its journal."""
        forgotten = 0
        for partition in self._partitions:
            forgotten += await self._inbox.trim(partition, None, names)
        if forgotten:
            log.warning(
                "the server's memory is nearly full (maxmemory): "
                "forgot %s delivered events before keep_days",
                forgotten,
            )

    def call_scheduled(self) -> None:
        """Call the scheduled jobs that are due."""
        for job, every in self._jobs:
            queues.call_scheduled(self._rq, job, every)

    def release(self) -> None:
        """Let another scheduler go on at once."""
        self._rq_scheduler.release_locks()  # type: ignore[no-untyped-call]

    def _enqueue_due(self) -> None:
        # RQ's own loop would look only every ten minutes whether another scheduler has died, and
        # its locks outlive it by a minute, or as long as the server's clock was set back.
        ours = self._rq_scheduler.acquire_locks()  # type: ignore[no-untyped-call]
        names = {queues.redeliver_queue(name): name for name in self._settings.handlers}
        for queue_name in names:
            self._rq.expire(RQScheduler.get_locking_key(queue_name), LOCKED_FOR, lt=True)
        self._follow_clock([names[queue_name] for queue_name in ours])
        self._rq_scheduler.enqueue_scheduled_jobs()  # type: ignore[no-untyped-call]

    def _follow_clock(self, names: Sequence[str]) -> None:
        """RQ schedules by the wall clock: when that was set back, what is due soon would wait."""
        clock = _clock()
        back = self._clock - clock
        if back > SET_BACK:
            log.warning("the clock was set back by %.0f s: redeliveries do not wait for it", back)
            for name in names:
                queues.bring_forward(self._rq, name, round(back))
        self._clock = clock


def _clock() -> float:
    """What changes only when the wall clock is set: seconds since 1970, when this machine began."""
    return time.time() - time.monotonic()
