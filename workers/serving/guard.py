"""`Guard`: moves handlers out that keep others waiting or hoard memory, and takes them back."""

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from offhook.event import CallEvent
from offhook.inbox import keys
from offhook.inbox.apart import Apart, read_apart
from offhook.tasks import asked_to_end
from workers.delivery.steps import StepPage
from workers.process import resident
from workers.serving.served import ServedHandler

if TYPE_CHECKING:
    from workers.serving.partition_server import Server
    from workers.serving.served_partition import ServedPartition

log = logging.getLogger("offhook.isolation")

TICK_EVERY = 0.1  # seconds between signs of life for the parent process
TOO_LONG = 0.25  # seconds of keeping all others waiting, at once
PATIENCE = 1.0  # the same, in all, within `PATIENCE_FOR`
PATIENCE_FOR = 10.0  # seconds
MOST_LOST_THREADS = 3
_SHORT = 0.7  # of `max_memory`, from which it is worth its time to see which handler takes it
APART_FOR = 600.0  # seconds without another cause until a handler comes back


class Guard:
    """Watches the handlers of one server from inside its process.

    A handler that blocks for longer than a second, or ends the process, is the parent process's
    to find: see `workers.isolation`.

    Attributes:
        returns: the pool's handler behaves, and is to be served with the others again.
        measures: memory is short: `measure` it after each delivery.
    """

    def __init__(self, server: "Server", page: StepPage, redis: Redis) -> None:
        self._server = server
        self._page = page
        self._redis = redis
        self._waits: dict[ServedHandler, tuple[float, float]] = {}  # since when, seconds in all
        self._leaving: set[ServedHandler] = set()
        self._restarts = False  # once the handler that took the memory has left
        self._memory = resident()
        self.returns = False
        self.measures = False
        self._deaths: dict[str, int] = {}

    async def run(self) -> None:
        """Show the parent process that the loop runs, and look at the memory."""
        while not asked_to_end():
            self._page.tick()
            await asyncio.sleep(TICK_EVERY)
            self._look_at_memory()

    async def open(self) -> None:
        """Read in the flight of which events processes have died, and which handlers run apart."""
        found: Any = await self._redis.hgetall(keys.DEATHS)
        self._deaths = {name.decode(): int(number) for name, number in found.items()}
        await self.look()

    def attempts(self, handler: ServedHandler, event: CallEvent) -> int:
        """How many attempts at an event have ended its process."""
        return self._deaths.get(f"{handler.name} {event.id}", 0) if self._deaths else 0

    async def look(self) -> None:
        """Follow which handlers run apart."""
        # Those that leave while the answer is on its way are not in it.
        left = {each for each in self._server.roster.handlers if each.apart} - self._leaving
        found: Any = await self._redis.hgetall(keys.APART)
        apart = read_apart(found)
        configured, pool = self._server.settings.pools, self._server.pool
        # A failover may lose the record; the shared processes then know nothing of this one.
        since = apart[pool].since if pool in apart else 0.0
        moved = pool not in configured | {""}
        if moved and time.time() - since > APART_FOR and not self.returns:
            log.warning("handler %s behaves: it runs with the others again", pool)
            self.returns = True
            self._server.stop()
        leaving = {handler.name for handler in self._leaving}
        self._server.pools = sorted((configured | apart.keys() | leaving) - {"", pool})
        for handler in self._server.roster.handlers:
            if handler in self._leaving or handler.name == pool:
                continue
            if handler.name in apart and (not handler.apart or self._is_held(handler)):
                self._follow(handler)
            elif handler in left and handler.name not in apart:
                if self._is_held(handler):
                    self._follow(handler)
                else:
                    # While a partition is opened, it is not known whether it will hold the handler.
                    handler.apart = any(not each.opened for each in self._partitions())
        for partition in self._partitions():
            if not partition.closed:  # meanwhile
                await partition.takeover.look()

    def _is_held(self, handler: ServedHandler) -> bool:
        """Return whether a partition still has a handler that left while it was opened."""
        return any(each.opened and handler not in each.away for each in self._partitions())

    def _partitions(self) -> "list[ServedPartition]":
        """Those that are not being given back."""
        return [each for each in self._server.share.partitions.values() if not each.closed]

    def kept_waiting(self, handler: ServedHandler, seconds: float) -> None:
        """Note that a handler has kept all others waiting."""
        now = time.monotonic()
        since, total = self._waits.get(handler, (now, 0.0))
        if now - since > PATIENCE_FOR:
            since, total = now, 0.0
        total += seconds
        self._waits[handler] = (since, total)
        if seconds > TOO_LONG or total > PATIENCE:
            self._move_out(handler, f"kept all others waiting for {seconds:.2f} s")

    def hung(self, handler: ServedHandler) -> None:
        """Note that a thread hangs in a plain handler."""
        if handler.lost_threads < MOST_LOST_THREADS:
            return
        if self._server.pool:
            log.error(
                "%s threads hang in %s: its process restarts", MOST_LOST_THREADS, handler.name
            )
            self._server.stop()  # the next process has all threads
        else:
            self._move_out(handler, f"has {MOST_LOST_THREADS} threads that hang")

    def measure(self, handler: ServedHandler) -> None:
        """Note by how much the process has grown while a handler ran."""
        before, self._memory = self._memory, resident()
        handler.grown += self._memory - before

    def _look_at_memory(self) -> None:
        """Move the handler out that took most of the memory, when there is too much."""
        before, self._memory = self._memory, resident()
        grown, ran = self._memory - before, self._server.runners.ran
        for handler in ran:
            handler.grown += grown / len(ran)
        ran.clear()
        self.measures = self._memory > self._server.settings.max_memory * _SHORT
        if self._memory < self._server.settings.max_memory or self._restarts:
            return
        worst = max(self._server.roster.handlers, key=lambda each: each.grown, default=None)
        megabytes = self._memory / 1e6
        if worst is not None and not self._server.pool:
            self._move_out(worst, f"took most of {megabytes:.0f} MB of memory", restart=True)
        else:
            log.error("the process uses %.0f MB of memory: it restarts", megabytes)
            self._server.stop()

    def _move_out(self, handler: ServedHandler, reason: str, *, restart: bool = False) -> None:
        if self._server.pool or handler.apart or handler in self._leaving:
            return
        log.error(
            "handler %s %s: from now on it runs in a process of its own", handler.name, reason
        )
        self._restarts = self._restarts or restart
        self._leaving.add(handler)
        self._server.spawn(partial(self._leave_for, handler, reason, restart=restart))

    def _follow(self, handler: ServedHandler) -> None:
        """Leave a handler that runs apart, once its deliveries have ended; wait for none of them.

        They may take long, and what else the server watches must not wait.
        """
        handler.apart = True
        self._leaving.add(handler)

        async def leave() -> None:
            await self._leave(handler)
            self._leaving.discard(handler)

        self._server.spawn(leave)

    async def _leave_for(self, handler: ServedHandler, reason: str, *, restart: bool) -> None:
        await self._leave(handler)
        await self._redis.hset(keys.APART, handler.name, Apart.now(reason).stored())
        self._leaving.discard(handler)
        if restart:
            self._server.stop()  # the next process has the memory back

    async def _leave(self, handler: ServedHandler) -> None:
        """Stop serving a handler; what it has not finished is in its records."""
        handler.apart = True
        if handler.name not in self._server.pools:
            self._server.pools.append(handler.name)
        while not handler.idle:
            await asyncio.sleep(0.01)
        for partition in list(self._server.share.partitions.values()):
            await partition.leave(handler)
        handler.forget()
