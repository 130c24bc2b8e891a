"""The scheduler: enqueues what is due and repairs what dead processes left behind.

It runs in a separate process. All its steps are idempotent, so several schedulers may run.
"""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from redis import Redis
from redis.exceptions import RedisError

from offhook import queues
from offhook.connection import connected
from offhook.errors import InboxUnavailable
from offhook.event import TROUBLE, CallEvent, EventType
from offhook.inbox import Inbox, ParkedLanes, keys
from offhook.inbox.record import Record
from offhook.inbox.trimming import Trimming
from offhook.logs import Outage
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
            await self.trim_record()
            await self._inbox.numbering.retire(self._settings.keep_days)

    async def round_of_jobs(self) -> None:
        """Do what is due on RQ's server."""
        for job, every in self._jobs:
            await self._call(job, every)
        now = time.monotonic()
        if now >= self._rejoin_at:
            self._rejoin_at = now + REJOIN_EVERY
            await self.rejoin_requeued(list(self._settings.all_handlers))

    async def rejoin_requeued(self, names: Sequence[str]) -> None:
        """Redeliver dead letters that were enqueued again with RQ's own tools."""
        for name in names:
            for job in await asyncio.to_thread(queues.requeued, self._rq, name):
                event = CallEvent.from_dict(job.args[1])
                await ParkedLanes(self._inbox, name).rejoin([event])
                await asyncio.to_thread(job.delete)

    async def trim(self) -> None:
        """Delete finished events older than `keep_days`, and events beyond `max_events`."""
        now = datetime.now(UTC)
        for partition in [*range(self._inbox.partitions), *await self._inbox.beyond()]:
            forgotten = 0
            for tenant in await self._inbox.tenants(partition):
                before = now - timedelta(days=self._settings.of(tenant).keep_days)
                names = self._settings.handlers_for(tenant)
                forgotten += await self._trimming.trim(partition, before, names, tenant)
            if forgotten:
                log.info("deleted %s delivered events from partition %s", forgotten, partition)
        if self._settings.max_events is None:
            return
        most = self._settings.max_events // self._inbox.partitions
        for partition in range(self._inbox.partitions):
            for tenant in await self._inbox.tenants(partition):
                names = self._settings.handlers_for(tenant)
                its = self._settings.tenants.get(tenant)
                share = int(most * its.limits.share) if its else most
                cut = await self._trimming.cut(partition, share, names, tenant)
                for name, lost in cut.items():
                    log.error(
                        "the inbox is full (max_events %s): %s will never get %s events of it",
                        self._settings.max_events,
                        name,
                        lost,
                    )

    async def trim_record(self) -> None:
        """Delete what the record has of deliveries from before the oldest event."""
        for partition in [*range(self._inbox.partitions), *await self._inbox.beyond()]:
            await self._record.trim(partition)

    async def make_room(self) -> None:
        """Delete all delivered events, so that the receiver does not need its journal."""
        forgotten = 0
        for partition in [*range(self._inbox.partitions), *await self._inbox.beyond()]:
            for tenant in await self._inbox.tenants(partition):
                names = self._settings.handlers_for(tenant)
                forgotten += await self._trimming.trim(partition, None, names, tenant)
        await self.trim_record()
        if forgotten:
            log.warning(
                "the server's memory is nearly full (maxmemory): "
                "deleted %s delivered events before keep_days",
                forgotten,
            )

    async def _call(self, job: str, every: float) -> None:
        """Enqueue a scheduled job if it is due, once even if several schedulers run."""
        mark, redis = keys.scheduled(job), self._inbox.redis
        if await redis.set(mark, "", nx=True, px=int(every * 1000)):
            try:
                await asyncio.to_thread(queues.call_scheduled, self._rq, job)
            except RedisError:
                await redis.delete(mark)
                raise
