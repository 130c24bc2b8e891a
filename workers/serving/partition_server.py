"""`Server`: serves as many partitions as are its share, for the handlers of one pool."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from offhook.extensions import Extensions, ExtensionsCopy
from offhook.http import Http
from offhook.inbox import Inbox, feed
from offhook.inbox.call_store import Calls
from offhook.inbox.leases import Leases
from offhook.logs import Outage
from offhook.operations.traces import Traces
from offhook.plugins import PluggedHandler
from offhook.settings import Settings, tenant_of_plugin
from offhook.tasks import asked_to_end, end
from workers.delivery.caller_names import CallerNames
from workers.delivery.redis_memory import RedisMemory
from workers.delivery.steps import StepPage
from workers.serving.attempts import Attempts
from workers.serving.guard import Guard
from workers.serving.partition_share import PartitionShare
from workers.serving.pauses import Pauses
from workers.serving.roster import Roster
from workers.serving.runners import Runners
from workers.serving.served import ServedHandler, TenantRoom
from workers.serving.turns import Turns

log = logging.getLogger("offhook.serve")

T = TypeVar("T")

WATCH_EVERY = 1.0  # seconds between looks at what other processes have changed
SLOW = 0.1  # seconds; a step that takes longer keeps others waiting
RELEASE_FOR = 2.0  # seconds to free the leases at once
PUBLISH_EVERY = 0.1  # seconds, while a client watches deliveries


class Server:
    """One process's part of the deliveries.

    Args:
        settings: the configuration.
        handlers: those to serve, plugged.
        inbox: with a client that retries.
        waiting: a client that does not, for commands that block.
        rq: a blocking client of RQ's server.
        http: for the handlers.
        names: what adds names to a tenant's events; None: nothing does.
        page: what the parent process sees.
        pool: whose handlers these are; empty for the shared one.
        least: number of servers that will share the partitions, though not all may run yet.

    Attributes:
        pools: the other pools, to be woken when there are events.
        reading, folding: whose turn it is with a tenant's backlog.
        records: of attempts, to publish while a client watches.
        traces: gets each attempt; None: nothing does.
        records_all: whether to keep a record of every attempt, or only of failures.
    """

    def __init__(
        self,
        settings: Settings,
        handlers: Sequence[PluggedHandler],
        inbox: Inbox,
        waiting: Redis,
        rq: BlockingRedis,
        http: Http,
        names: Callable[[str], CallerNames | None],
        page: StepPage,
        pool: str = "",
        least: int = 1,
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.folds = not pool
        self.http = http
        self.names = names
        self.calls = Calls(inbox)
        self.extensions = ExtensionsCopy(Extensions(inbox.redis))
        self.outage = Outage(log, "Redis")
        self.runners = Runners(Attempts(self, page).run, self._slow, self._broken)
        memory = {each.name: RedisMemory(inbox.redis, each.name) for each in handlers}
        rooms = {
            name: TenantRoom(each.limits.concurrency) for name, each in settings.tenants.items()
        }
        served = [
            ServedHandler(each, tenant, memory[each.name], self.runners, rooms.get(tenant))
            for each in handlers
            for tenant in [tenant_of_plugin(each.name)]
        ]
        self.roster = Roster(settings, served, self.runners, self.extensions)
        self.leases = Leases(inbox.redis, inbox.partitions, pool, least)
        self.share = PartitionShare(self, inbox, waiting)
        self.guard = Guard(self, page, inbox.redis)
        several = bool(settings.tenants)
        self.reading, self.folding = Turns(needed=several), Turns(needed=several)
        self._pauses = Pauses(self.roster, inbox.redis)
        self.pools: list[str] = []
        self.watched = False
        self.records: list[dict[str, Any]] = []
        self.traces: Traces | None = None
        self.records_all = settings.record == "all"
        self._inbox = inbox
        self._rq = rq
        self._rq_outage = Outage(log, "RQ's server")
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._error: BaseException | None = None
        # Not asyncio's threads, which look up the hosts of targets: RQ's server may hang.
        self._rq_threads = ThreadPoolExecutor(4, "rq")

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            LeaseLost: another process serves a partition; it must be left alone at once.
        """
        try:
            await self.guard.open()
            await self._pauses.look()  # before the first delivery
            await self.share.add_leftover_partitions()
            for each in (self.guard.run(), self.share.keep(), self.share.adapt(), self._watch()):
                self.run_beside(each)
            await self._stop.wait()
            if self._error is None:
                leaving = asyncio.create_task(self.share.leave())
                dropping = asyncio.create_task(self._at_once.wait())
                await asyncio.wait((leaving, dropping), return_when=asyncio.FIRST_COMPLETED)
                await end(leaving, dropping)
                if not leaving.cancelled():
                    leaving.result()
        finally:
            await end(*self._tasks)
            await self.runners.close()
            self._rq_threads.shutdown(wait=False, cancel_futures=True)
            for handler in self.roster.handlers:
                handler.close()
            if self._at_once.is_set() or self._error is not None:
                with suppress(RedisError, TimeoutError):  # they expire
                    async with asyncio.timeout(RELEASE_FOR):
                        await self.share.release()
        if self._error is not None:
            raise self._error

    def stop(self, *, at_once: bool = False) -> None:
        """Return from `run`.

        Args:
            at_once: drop the deliveries that run, instead of finishing them; also if it is
                stopping already.
        """
        if at_once:
            self._at_once.set()
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Return whether to take no more partitions."""
        return self._stop.is_set()

    def spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run something beside the rest, again if Redis does not answer."""
        self.run_beside(self.until_done(work))

    async def until_done(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something, again if Redis does not answer."""
        while True:
            try:
                return await work()
            except RedisError as error:
                self.outage.goes_on(error)
                await asyncio.sleep(1)

    async def call_rq(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call a function that uses RQ's server (its first argument), again if it is away."""
        loop = asyncio.get_running_loop()
        while True:
            call = partial(function, self._rq, *arguments, **named)
            try:
                found = await loop.run_in_executor(self._rq_threads, call)
            except Exception as error:  # noqa: BLE001 - without its dead letter an event is lost
                self._rq_outage.goes_on(error)
                await asyncio.sleep(1)
            else:
                self._rq_outage.is_over()
                return found

    def run_beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside the rest. Its error ends the server."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def _watch(self) -> None:
        """Follow what other processes change, and publish attempts if a client watches."""
        at = 0.0
        while not asked_to_end():
            with suppress(RedisError):  # `PartitionShare.keep` reports it
                if time.monotonic() >= at:
                    at = time.monotonic() + WATCH_EVERY
                    self.watched = await feed.is_watched(self._inbox.redis)
                    await self.extensions.refresh(self.roster.changed)
                    await self.guard.look()
                    await self._pauses.look()
                    await self.share.add_new_partitions()
                if self.records:
                    records, self.records = self.records, []
                    await feed.publish(self._inbox.redis, records)
            await asyncio.sleep(PUBLISH_EVERY if self.watched else WATCH_EVERY)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._broken(error)

    def _broken(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]  # the others are its consequences
        if self._error is None:
            self._error = error
        self._stop.set()

    def _slow(self, handler: ServedHandler, seconds: float) -> None:
        self.guard.measure(handler)  # to fill much memory takes long
        if seconds > SLOW:
            self.guard.kept_waiting(handler, seconds)
