"""The scheduler: enqueues what is due and repairs what dead processes left behind.

It runs in a separate process. All its steps are idempotent, so several schedulers may run.
"""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from redis import Redis
from redis.exceptions import RedisError
from rq import Worker
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer

from offhook import queues
from offhook.connection import opened
from offhook.event import EventType
from offhook.inbox import CALL_LOG, Inbox, ParkedLanes
from offhook.inbox.call_store import Calls
from offhook.logs import Outage
from offhook.plugins import wanted_types
from offhook.settings import Settings

log = logging.getLogger("offhook.scheduler")

EVERY = 1.0  # seconds between rounds: due redeliveries, cursors that no worker serves
LANES_EVERY = 2.0  # seconds between searches for parked lanes without a job
TRIM_EVERY = 60.0  # seconds between deletions of events older than `keep_days`
TIGHT = 0.8  # share of maxmemory in use from which delivered events are deleted early
LOCKED_FOR = 5  # seconds after a scheduler's death until another one takes over its redeliveries
SET_BACK = 2.0  # seconds; smaller jumps do not count as setting back the clock

PHONES = {EventType.PHONE_REGISTERED, EventType.PHONE_UNREGISTERED}

# Scheduled jobs: the name, seconds between runs, and whether a configuration needs it.
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
        "workers.silence.find_silent_extensions",
        3600.0,
        lambda settings: EventType.EXTENSION_SILENT in wanted_types(settings.handlers),
    ),
    (
        "workers.daily_summary.daily_summary",
        60.0,
        lambda settings: settings.daily_summary is not None,
    ),
    ("workers.retention.delete_expired", 3600.0, lambda settings: True),
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
    async with opened(settings) as (inbox, rq):
        scheduler = Scheduler(settings, inbox, rq)
        outage = Outage(log, "Redis")
        try:
            while not stop.is_set():
                try:
                    await scheduler.round()
                    outage.is_over()
                except RedisError as error:
                    outage.goes_on(error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), EVERY)
        finally:
            try:
                await asyncio.to_thread(scheduler.release)
            except RedisError as error:
                log.warning("cannot release the scheduler's locks, they will expire: %s", error)


class Scheduler:
    """The periodic work for all handlers."""

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
        # Otherwise it opens its own connection, which ignores Sentinels.
        self._rq_scheduler._connection = rq  # type: ignore[assignment]
        self._lanes_at = self._trim_at = 0.0
        self._beyond: list[int] = []  # partitions from before `partitions` was lowered
        self._clock = _clock()
        self._suspects: set[tuple[str, str]] = set()
        self._calls = Calls(inbox)
        self._jobs = [(job, every) for job, every, needed in JOBS if needed(settings)]

    async def round(self) -> None:
        """Do what is due."""
        names = list(self._settings.handlers)
        cursors = list(self._settings.cursors)
        # First, because a full server rejects the writes of the other steps.
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
            await self.report_unserved(cursors)

    @property
    def _partitions(self) -> list[int]:
        return [*range(self._settings.partitions), *self._beyond]

    async def wake_sleepers(self, names: Sequence[str]) -> None:
        """Wake a dispatch for every cursor that is behind and that no worker serves."""
        for name in names:
            for partition in self._partitions:
                if await self._inbox.behind(name, partition):
                    await asyncio.to_thread(queues.wake, self._rq, name, partition)

    async def wake_calls(self) -> None:
        """Have calls closed in time in partitions that get no events."""
        before = datetime.now(UTC) - timedelta(seconds=self._settings.call_timeout)
        for partition in range(self._settings.partitions):
            if await self._calls.neglected(partition, before):
                await asyncio.to_thread(queues.wake, self._rq, CALL_LOG, partition)

    async def revive_lanes(self, names: Sequence[str]) -> None:
        """Enqueue the redelivery of parked lanes that lost theirs when a process died.

        A lane without one must be found in two rounds, because its redelivery may be about to be
        enqueued.
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
                        log.warning("lane %s of %s lost its redelivery, enqueued again", lane, name)
                        await asyncio.to_thread(queues.revive, self._rq, name, event)
        self._suspects = found

    async def trim(self, names: Sequence[str]) -> None:
        """Delete delivered events older than `keep_days`, and events beyond `max_events`."""
        before = datetime.now(UTC) - timedelta(days=self._settings.keep_days)
        for partition in self._partitions:
            forgotten = await self._inbox.trim(partition, before, names)
            if forgotten:
                log.info("deleted %s delivered events from partition %s", forgotten, partition)
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

    async def report_unserved(self, names: Sequence[str]) -> None:
        """Log the events of leftover partitions that no worker delivers."""
        for partition in self._beyond:
            for name in names:
                queue = queues.queue(queues.dispatch_queue(name, partition), self._rq)
                if not await self._inbox.unfinished([name], partition):
                    continue
                if not await asyncio.to_thread(Worker.count, queue=queue):
                    log.error(
                        "partition %s, from before `partitions` was lowered, has events for %s "
                        "that no worker delivers: restart `offhook work` to deliver them",
                        partition,
                        name,
                    )

    async def make_room(self, names: Sequence[str]) -> None:
        """Delete all delivered events, so that the receiver does not need its journal."""
        forgotten = 0
        for partition in self._partitions:
            forgotten += await self._inbox.trim(partition, None, names)
        if forgotten:
            log.warning(
                "the server's memory is nearly full (maxmemory): "
                "deleted %s delivered events before keep_days",
                forgotten,
            )

    def call_scheduled(self) -> None:
        """Enqueue the scheduled jobs that are due."""
        for job, every in self._jobs:
            queues.call_scheduled(self._rq, job, every)

    def release(self) -> None:
        """Release the locks, so that another scheduler can take over at once."""
        self._rq_scheduler.release_locks()  # type: ignore[no-untyped-call]

    def _enqueue_due(self) -> None:
        # RQ's own loop looks for dead schedulers only every ten minutes, and their locks last for
        # a minute, or longer if the server's clock was set back.
        ours = self._rq_scheduler.acquire_locks()  # type: ignore[no-untyped-call]
        names = {queues.redeliver_queue(name): name for name in self._settings.handlers}
        for queue_name in names:
            self._rq.expire(RQScheduler.get_locking_key(queue_name), LOCKED_FOR, lt=True)
        self._follow_clock([names[queue_name] for queue_name in ours])
        self._rq_scheduler.enqueue_scheduled_jobs()  # type: ignore[no-untyped-call]

    def _follow_clock(self, names: Sequence[str]) -> None:
        """Bring redeliveries forward if the wall clock, which RQ schedules by, was set back."""
        clock = _clock()
        back = self._clock - clock
        if back > SET_BACK:
            log.warning("the clock was set back by %.0f s: redeliveries moved forward", back)
            for name in names:
                queues.bring_forward(self._rq, name, round(back))
        self._clock = clock


def _clock() -> float:
    """Return when this machine booted, in seconds since 1970: changes only if the clock is set."""
    return time.time() - time.monotonic()
