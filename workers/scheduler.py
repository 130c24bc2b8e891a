"""The scheduler: enqueues what is due and repairs what dead processes left behind.

It runs in a separate process. All its steps are idempotent, so several schedulers may run.
"""

import asyncio
import logging
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from redis import Redis
from redis.exceptions import RedisError

from offhook import queues
from offhook.connection import connected
from offhook.errors import InboxUnavailable
from offhook.event import TROUBLE, EventType
from offhook.inbox import Inbox, keys
from offhook.inbox.record import Record
from offhook.inbox.trimming import Trimming
from offhook.logs import Outage
from offhook.operations import dead_letters
from offhook.plugins import wanted_types
from offhook.redis_servers import memory_used
from offhook.settings import Settings
from workers.trouble_watch import TroubleWatch

log = logging.getLogger("offhook.scheduler")

EVERY = 1.0  # seconds between rounds
TRIM_EVERY = 60.0  # seconds between deletions of events older than `keep_days`
REJOIN_EVERY = 60.0  # seconds between looks for dead letters that RQ's own tools have enqueued
TIGHT = 0.8  # share of maxmemory in use from which delivered events are deleted early
ALIVE_FOR = 5.0  # seconds from a scheduler's last sign of life until `status` misses it

# Jobs that are not due at a start, when the other processes may not run yet, and after how long.
LATER = {"workers.doctor.run_doctor": 300.0}

PHONES = {EventType.PHONE_REGISTERED, EventType.PHONE_UNREGISTERED}

# Scheduled jobs: the name, seconds between runs, and whether a configuration needs it.
JOBS: tuple[tuple[str, float, Callable[[Settings], bool]], ...] = (
    ("workers.reconcile.job.reconcile", 3600.0, lambda settings: _has_api(settings)),
    (
        "workers.phones.watch_phones",
        60.0,
        lambda settings: (
            _has_api(settings) and not PHONES.isdisjoint(wanted_types(settings.all_handlers))
        ),
    ),
    (
        "workers.silence.find_silent_extensions",
        3600.0,
        lambda settings: EventType.EXTENSION_SILENT in wanted_types(settings.all_handlers),
    ),
    (
        "workers.registrations.check_registrations",
        600.0,
        lambda settings: (
            _has_api(settings)
            and EventType.REGISTRATION_LOST in wanted_types(settings.all_handlers)
        ),
    ),
    (
        "workers.daily_summary.daily_summary",
        60.0,
        lambda settings: any(each.daily_summary is not None for each in _of_all(settings)),
    ),
    ("workers.retention.delete_expired", 3600.0, lambda settings: True),
    ("workers.index_calls.index_calls", 3600.0, lambda settings: True),
    ("workers.doctor.run_doctor", 1800.0, lambda settings: True),
)


def _has_api(settings: Settings) -> bool:
    return any(pbx.host is not None for each in _of_all(settings) for pbx in each.pbx.values())


def _of_all(settings: Settings) -> Iterator[Settings]:
    """The settings of the operator and of each tenant."""
    return map(settings.of, ["", *settings.tenants])


def run(settings: Settings) -> None:
    """Run until SIGTERM."""
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with connected(settings) as (inbox, rq):
        scheduler = Scheduler(settings, inbox, rq)
        # Apart, because their servers may be two, and one may be away.
        await asyncio.gather(
            _repeat(scheduler.round, "Redis", stop),
            _repeat(scheduler.round_of_jobs, "RQ's server", stop),
            *(
                [_repeat(TroubleWatch(settings, inbox).round, "Redis", stop)]
                if not wanted_types(settings.all_handlers).isdisjoint(TROUBLE)
                else []
            ),
        )


async def _repeat(step: Callable[[], Awaitable[None]], server: str, stop: asyncio.Event) -> None:
    outage = Outage(log, server)
    while not stop.is_set():
        try:
            await step()
            outage.is_over()
        except (RedisError, InboxUnavailable, TimeoutError) as error:
            outage.goes_on(error)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), EVERY)


class Scheduler:
    """The periodic work for all handlers."""

    def __init__(self, settings: Settings, inbox: Inbox, rq: Redis) -> None:
        self._settings = settings
        self._inbox = inbox
        self._rq = rq
        self._record = Record(inbox)
        self._trimming = Trimming(inbox)
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._trim_at = self._rejoin_at = 0.0
        self._began = time.monotonic()
        self._positions: list[int] = []  # as of the last time that all handlers had theirs
        self._jobs = [(job, every) for job, every, needed in JOBS if needed(settings)]

    async def round(self) -> None:
        """Do what is due on the inbox's server."""
        await self._inbox.numbering.load()
        # First, because a full server rejects the writes of the other steps.
        if await memory_used(self._inbox.redis) > TIGHT:
            await self.make_room()
        await self._inbox.redis.set(keys.SCHEDULER, self._name, px=int(ALIVE_FOR * 1000))
        if self._positions != await self._inbox.positions():  # else none is missing
            await self._inbox.register(self._settings.starts)
            self._positions = await self._inbox.positions()
        now = time.monotonic()
        if now >= self._trim_at:
            self._trim_at = now + TRIM_EVERY
            await self.trim()
            await self._inbox.numbering.retire(self._settings.keep_days)

    async def round_of_jobs(self) -> None:
        """Do what is due on RQ's server."""
        now = time.monotonic()
        for job, every in self._jobs:
            if now >= self._began + LATER.get(job, 0.0):
                await self._call(job, every)
        if now >= self._rejoin_at:
            self._rejoin_at = now + REJOIN_EVERY
            await self.rejoin_requeued()

    async def rejoin_requeued(self) -> None:
        """Redeliver dead letters that wait to join their lanes again."""
        names = self._settings.all_handlers
        for name in await asyncio.to_thread(queues.with_requeued, self._rq, names):
            await dead_letters.rejoin_requeued(self._inbox, self._rq, name)

    async def trim(self) -> None:
        """Delete events beyond `max_events`, and finished ones older than `keep_days`."""
        if self._settings.max_events is not None:
            await self._cut(self._settings.max_events)
        now = datetime.now(UTC)
        for partition, forgotten in (await self._forget(now)).items():
            log.info("deleted %s delivered events from partition %s", forgotten, partition)

    async def _cut(self, max_events: int) -> None:
        most = max_events // self._inbox.partitions
        for partition in range(self._inbox.partitions):
            for tenant in await self._inbox.tenants(partition):
                names = self._settings.handlers_for(tenant)
                its = self._settings.tenants.get(tenant)
                share = int(most * its.limits.share) if its else most
                cut = await self._trimming.cut(partition, share, names, tenant)
                for name, lost in cut.items():
                    log.error(
                        "the inbox is full (max_events %s): %s will never get %s events of it",
                        max_events,
                        name,
                        lost,
                    )

    async def make_room(self) -> None:
        """Delete all delivered events, so that the receiver does not need its journal."""
        forgotten = await self._forget(None)
        if forgotten:
            log.warning(
                "the server's memory is nearly full (maxmemory): "
                "deleted %s delivered events before keep_days",
                sum(forgotten.values()),
            )

    async def _forget(self, now: datetime | None) -> Counter[int]:
        """Delete finished events, and the record of deliveries from before the oldest one left.

        Args:
            now: delete those that are older than `keep_days`; None: all.

        Returns:
            How many were deleted from each partition.
        """
        forgotten: Counter[int] = Counter()
        for partition in [*range(self._inbox.partitions), *await self._inbox.beyond()]:
            for tenant in await self._inbox.tenants(partition):
                before = now and now - timedelta(days=self._settings.of(tenant).keep_days)
                names = self._settings.handlers_for(tenant)
                forgotten[partition] += await self._trimming.trim(partition, before, names, tenant)
            await self._record.trim(partition)
        return +forgotten

    async def _call(self, job: str, every: float) -> None:
        """Enqueue a scheduled job if it is due, once even if several schedulers run."""
        mark, redis = keys.scheduled(job), self._inbox.redis
        if await redis.set(mark, "", nx=True, px=int(every * 1000)):
            try:
                await asyncio.to_thread(queues.call_scheduled, self._rq, job)
            except RedisError:
                await redis.delete(mark)
                raise
