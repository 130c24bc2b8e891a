"""The scheduler: sends redeliveries when they are due, and finds what nobody woke.

One process of its own. All it does may be done twice, so several may run.
"""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from redis import Redis
from redis.exceptions import RedisError
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer

from offhook import queues
from offhook.connection import connect, connect_rq
from offhook.inbox import CALL_LOG, Inbox
from offhook.inbox.calls import Calls
from offhook.settings import Settings

log = logging.getLogger("offhook.scheduler")

EVERY = 1.0  # seconds: redeliveries that are due, cursors that nobody serves
LANES_EVERY = 2.0  # seconds: parked lanes without a job
TRIM_EVERY = 60.0  # seconds: events older than `keep_days`
TIGHT = 0.8  # of the server's memory in use, then delivered events go before `keep_days`
LOCKED_FOR = 5  # seconds after a scheduler's death until another one sends its redeliveries


def run(settings: Settings) -> None:
    """Run until SIGTERM."""
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    redis, rq = connect(settings.redis_url), connect_rq(settings.redis_url)
    scheduler = Scheduler(settings, Inbox(redis, settings.partitions), rq)
    try:
        while not stop.is_set():
            try:
                await scheduler.round()
            except RedisError as error:
                log.error("Redis does not answer (%s); trying again", error)
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
        self._suspects: set[tuple[str, str]] = set()
        self._calls = Calls(inbox)

    async def round(self) -> None:
        """Do what is due."""
        names = list(self._settings.handlers)
        cursors = list(self._settings.cursors)
        for name, start in self._settings.cursors.items():
            await self._inbox.ensure_cursor(name, start)
        await self.wake_sleepers(cursors)
        await self.wake_calls()
        await asyncio.to_thread(self._enqueue_due)
        now = time.monotonic()
        if now >= self._lanes_at:
            self._lanes_at = now + LANES_EVERY
            await self.revive_lanes(names)
        if now >= self._trim_at:
            self._trim_at = now + TRIM_EVERY
            await self.trim(cursors)
        if await self._inbox.memory_used() > TIGHT:
            await self.make_room(cursors)

    async def wake_sleepers(self, names: Sequence[str]) -> None:
        """Call a dispatch for every cursor that is behind and that none serves."""
        for name in names:
            for partition in range(self._settings.partitions):
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
            known = await asyncio.to_thread(queues.redeliveries, self._rq, name)
            for partition in range(self._settings.partitions):
                for lane, event_id in (await self._inbox.parked(name, partition)).items():
                    if queues.redelivery_id(name, event_id) in known:
                        continue
                    if (name, event_id) not in self._suspects:
                        found.add((name, event_id))
                        continue
                    event = await self._inbox.head(name, partition, lane)
                    if event is not None and event.id == event_id:
                        log.warning("lane %s of %s is revived", lane, name)
                        await asyncio.to_thread(queues.revive, self._rq, name, event)
        self._suspects = found

    async def trim(self, names: Sequence[str]) -> None:
        """Forget delivered events older than `keep_days`, and all that `max_events` forbids."""
        before = datetime.now(UTC) - timedelta(days=self._settings.keep_days)
        for partition in range(self._settings.partitions):
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

    async def make_room(self, names: Sequence[str]) -> None:
        """Forget all delivered events, so that the receiver need not turn to its journal."""
        forgotten = 0
        for partition in range(self._settings.partitions):
            forgotten += await self._inbox.trim(partition, datetime.now(UTC), names)
        if forgotten:
            log.warning(
                "the server's memory is nearly full (maxmemory): "
                "forgot %s delivered events before keep_days",
                forgotten,
            )

    def release(self) -> None:
        """Let another scheduler go on at once."""
        self._rq_scheduler.release_locks()  # type: ignore[no-untyped-call]

    def _enqueue_due(self) -> None:
        # RQ's own loop would look only every ten minutes whether another scheduler has died, and
        # its locks outlive it by a minute.
        for name in self._rq_scheduler.acquire_locks():  # type: ignore[no-untyped-call]
            self._rq.expire(RQScheduler.get_locking_key(name), LOCKED_FOR)
        self._rq_scheduler.enqueue_scheduled_jobs()  # type: ignore[no-untyped-call]
