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

from offhook.errors import LeaseLost
from offhook.extensions import Extensions, ExtensionsCopy
from offhook.http import Http
from offhook.inbox import Inbox, feed
from offhook.inbox.call_store import Calls
from offhook.inbox.leases import LEASE_MS, Leases
from offhook.inbox.partition import Partition
from offhook.logs import Outage
from offhook.plugins import PluggedHandler
from offhook.settings import Settings, tenant_of_plugin
from offhook.tasks import asked_to_end, end
from workers.delivery.caller_names import CallerNames
from workers.delivery.redis_memory import RedisMemory
from workers.delivery.steps import StepPage
from workers.serving.attempts import Attempts
from workers.serving.guard import Guard
from workers.serving.roster import Roster
from workers.serving.runners import Runners
from workers.serving.served import ServedHandler, TenantRoom
from workers.serving.served_partition import ServedPartition

log = logging.getLogger("offhook.serve")

T = TypeVar("T")

RENEW_EVERY = 1.0  # seconds
TAKE_EVERY = 0.05  # seconds between attempts to take partitions that another server gives back
EAGER_FOR = 10.0  # seconds for which these attempts are made
SURE_FOR = LEASE_MS / 1000 * 0.8  # shorter than on the server, for clock drift
WATCH_EVERY = 1.0  # seconds between looks at what other processes have changed
SLOW = 0.1  # seconds; a step that takes longer keeps others waiting
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
        records: of attempts, to publish while a client watches.
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
        self.partitions: dict[int, ServedPartition] = {}
        self.leases = Leases(inbox.redis, inbox.partitions, pool, least)
        self.guard = Guard(self, page, inbox.redis)
        self.pools: list[str] = []
        self.watched = False
        self.records: list[dict[str, Any]] = []
        self.records_all = settings.record == "all"
        self._inbox = inbox
        self._waiting = waiting
        self._rq = rq
        self._rq_outage = Outage(log, "RQ's server")
        self._share = 0
        self._eager_until = 0.0
        self._sure_until = time.monotonic() + SURE_FOR
        self._tasks: set[asyncio.Task[None]] = set()
        self._serving: dict[int, asyncio.Task[None]] = {}
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
            await self._add_leftover_partitions()
            for each in (self.guard.run(), self._keep(), self._adapt(), self._watch()):
                self._run_beside(each)
            await self._stop.wait()
            if self._error is None:
                leaving = asyncio.create_task(self._leave())
                dropping = asyncio.create_task(self._at_once.wait())
                await asyncio.wait((leaving, dropping), return_when=asyncio.FIRST_COMPLETED)
                await end(leaving, dropping)
                if not leaving.cancelled():
                    leaving.result()
        finally:
            await end(*self._tasks, *self._serving.values())
            await self.runners.close()
            self._rq_threads.shutdown(wait=False, cancel_futures=True)
            for handler in self.roster.handlers:
                handler.close()
            if self._at_once.is_set():
                with suppress(RedisError):  # they expire
                    for served in self.partitions.values():
                        await served.partition.release()
                    await self.leases.leave()
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

    def check_lease(self) -> None:
        """Raise `LeaseLost` unless this process certainly holds its leases."""
        if time.monotonic() > self._sure_until:
            raise LeaseLost("cannot renew the leases")

    def spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run something beside the rest, again if Redis does not answer."""
        self._run_beside(self.until_done(work))

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

    def _run_beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    # Its own life

    async def _add_new_partitions(self) -> None:
        """Serve partitions that the receivers have begun to use."""
        await self._inbox.numbering.load()
        new = [*set(range(self._inbox.partitions)).difference(self.leases.order)]
        if new:
            log.info("serves %s partitions now", self._inbox.partitions)
            self.leases.add(sorted(new))

    async def _add_leftover_partitions(self) -> None:
        leftover = await self._inbox.leftover(self.pool)
        if leftover:
            log.warning(
                "`partitions` was lowered to %s: partition %s has unfinished events, and is "
                "served, too",
                self._inbox.partitions,
                ", ".join(map(str, leftover)),
            )
            self.leases.add(leftover)

    async def _keep(self) -> None:
        """Renew the leases."""
        while not asked_to_end():
            asked = time.monotonic()
            tokens = {number: each.partition.token for number, each in self.partitions.items()}
            try:
                share, lost = await self.leases.renew(tokens)
                for number in lost:
                    served = self.partitions.get(number)
                    # Else it was given back, or its lease taken anew, meanwhile.
                    if served is not None and served.partition.token == tokens[number]:
                        raise LeaseLost(f"another process serves partition {number}")
                self._sure_until = asked + SURE_FOR
                if share > self._share:  # another server leaves
                    self._eager_until = asked + EAGER_FOR
                self._share = share
                self.outage.is_over()
            except RedisError as error:
                self.outage.goes_on(error)
            await asyncio.sleep(RENEW_EVERY)

    async def _adapt(self) -> None:
        """Take and give back partitions as other servers come and go."""
        while not asked_to_end():
            try:
                held = [number for number, each in self.partitions.items() if not each.closed]
                await asyncio.gather(*(self._give_back(number) for number in held[self._share :]))
                for number in self.leases.order:
                    if len(self.partitions) >= self._share or self._stop.is_set():
                        break
                    if number not in self.partitions:
                        await self._take(number)
            except RedisError as error:
                self.outage.goes_on(error)
            lacks = len(self.partitions) < self._share
            eager = lacks and time.monotonic() < self._eager_until
            await asyncio.sleep(TAKE_EVERY if eager else RENEW_EVERY / 4)

    async def _take(self, number: int) -> None:
        partition = Partition(self._inbox.redis, self._waiting, number, self.pool)
        if await partition.take() > 0:
            return
        if self._stop.is_set():
            await partition.release()
            return
        self.partitions[number] = served = ServedPartition(self, partition)
        task = self._serving[number] = asyncio.create_task(served.run())
        task.add_done_callback(self._ended)

    async def _give_back(self, number: int) -> None:
        served, task = self.partitions[number], self._serving[number]
        draining = asyncio.create_task(served.drain())
        await asyncio.wait((draining, task), return_when=asyncio.FIRST_COMPLETED)
        if draining.done() and not draining.result():
            await asyncio.wait((task,))  # a cancellation would hide its error
        await end(draining, task)
        if task.cancelled():  # otherwise it has failed, which ends the server
            served.drop()
            self.partitions.pop(number, None)
            self._serving.pop(number, None)
            await served.partition.release()

    async def _leave(self) -> None:
        with suppress(RedisError):  # its sign of life expires
            if await self.leases.leave():
                await asyncio.sleep(RENEW_EVERY)  # others learn that all partitions are theirs
        await asyncio.gather(*(self._give_back(number) for number in [*self._serving]))

    async def _watch(self) -> None:
        """Follow what other processes change, and publish attempts if a client watches."""
        at = 0.0
        while not asked_to_end():
            with suppress(RedisError):  # `_keep` reports it
                if time.monotonic() >= at:
                    at = time.monotonic() + WATCH_EVERY
                    self.watched = await feed.is_watched(self._inbox.redis)
                    await self.extensions.refresh(self.roster.changed)
                    await self.guard.look()
                    await self._add_new_partitions()
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
