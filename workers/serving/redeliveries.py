"""`Redeliveries`: follows when the attempts at parked lanes are due."""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from offhook.event import tenant_of
from offhook.inbox import quarantine
from offhook.logs import Outage
from offhook.tasks import asked_to_end, woken
from workers.serving.due import DueAttempts
from workers.serving.lanes import Redelivery
from workers.serving.served import ServedHandler

if TYPE_CHECKING:
    from workers.serving.partition_server import Server
    from workers.serving.served_partition import ServedPartition

log = logging.getLogger("offhook.redeliver")

AT_ONCE = 200
LOOK_EVERY = 10.0  # seconds, should the server's clock be ahead of ours
SET_BACK = 2.0  # seconds; smaller jumps do not count as setting back the clock


class Redeliveries:
    """The redeliveries of one partition."""

    def __init__(self, server: "Server", served: "ServedPartition") -> None:
        self._server = server
        self._served = served
        self._due_times = served.partition.due_times
        self._due = DueAttempts(server, served, self.expect)
        self._wake = asyncio.Event()
        self._outage = Outage(log, "Redis")
        self._expected = math.inf  # when the next one is due of which Redis may not know yet
        self._find_lost_at = 0.0  # monotonic

    async def open(self) -> None:
        """Note which calls are parked, so that their new events are parked behind."""
        parked = [each for each in await self._due_times.parked() if self._serves(each[0])]
        await self._take_in(parked)

    async def adopt(self, handler: ServedHandler) -> None:
        """Note which calls of one handler are parked."""
        await self._take_in(
            [each for each in await self._due_times.parked() if each[0] == handler.name]
        )

    async def _take_in(self, parked: Sequence[tuple[str, str]]) -> None:
        """Note parked lanes; make those due that another pool would have redelivered."""
        for name, call in parked:
            handler = self._server.roster.get(name)
            if handler is not None:
                handler.parked[self._served.number, call] = False
        if not parked:
            return
        known = {*await self._due_times.scheduled(), *self._due.running}
        strays = [each for each in parked if each not in known]
        if strays:
            self._served.writer.lanes.lost(strays, time.time())

    def _serves(self, name: str) -> bool:
        handler = self._server.roster.get(name)
        return handler is not None and handler not in self._served.away

    def look(self) -> None:
        """Look at the due times now: another process may have changed them."""
        self._wake.set()

    def expect(self, due: float) -> None:
        """Look at the due times then, in seconds since 1970."""
        if due < self._expected:
            self._expected = due
            self._wake.set()

    async def run(self) -> None:
        """Begin redeliveries until cancelled."""
        try:
            await self._follow_due_times()
        finally:
            for work in [*self._due.running.values()]:
                self.ended(work)

    async def _follow_due_times(self) -> None:
        clock = _clock()
        while not asked_to_end():
            wait = LOOK_EVERY
            if not self._served.closed:
                try:
                    if time.monotonic() >= self._find_lost_at:
                        await self._find_lost()
                    back, clock = clock - _clock(), _clock()
                    if back > SET_BACK:
                        await self._bring_forward(back)
                    wait = await self._begin()
                    self._outage.is_over()
                except RedisError as error:
                    self._outage.goes_on(error)
                    self._find_lost_at = 0.0
                    wait = 0.2
            if asked_to_end():
                return  # a cancellation can get lost: see `offhook.tasks.end`
            if self._expected < math.inf:
                wait = min(wait, max(0.002, self._expected - time.time()))
            await woken(self._wake, wait)

    def ended(self, work: Redelivery) -> None:
        """Note that the attempts have ended."""
        self._due.ended(work)

    async def set_aside(self, work: Redelivery) -> None:
        """Put the event that a lane waits for, which cannot be read, into the quarantine."""
        assert work.unreadable is not None  # noqa: S101
        (stored, error), name = work.unreadable, work.handler.name
        log.error(
            "an event of %s parked for %s cannot be read, set aside: %s", work.call, name, error
        )
        work.handler.circuit.release_probe()
        reason = f"an event parked for {name} that cannot be read: {error}"
        redis, size = self._served.partition.redis, self._server.settings.quarantine_size
        keep = partial(quarantine.set_aside, redis, stored, reason, size, tenant_of(work.call))
        self._server.runners.suspended()
        try:
            await self._server.until_done(keep)
        finally:
            self._server.runners.resumed()

    async def _begin(self) -> float:
        """Begin what is due. Return the seconds until the next one is."""
        while not asked_to_end():
            if self._expected <= time.time():
                self._expected = math.inf
                await self._served.writer.written()
            following, begun = await self._due_times.begin(time.time(), AT_ONCE)
            await self._due.start(begun)
            if len(begun) < AT_ONCE:
                self._due.lost.clear()  # all of them have begun: a later event is not one of them
                if following is None:
                    return LOOK_EVERY
                return min(LOOK_EVERY, max(0.001, following - time.time()))
        return LOOK_EVERY

    async def _find_lost(self) -> None:
        """Make attempts due again that a dead process began, or whose response was lost.

        A request may reach the server after its client gave up, so look again and again.
        """
        running = {*self._due.running}
        if any(each not in running for each in await self._due_times.begun()):
            await self._served.writer.written()  # so what has ended has no longer begun
            lost = [each for each in await self._due_times.begun() if each not in running]
            self._served.writer.lanes.lost(lost, time.time())
            self._due.lost.update(lost)
            await self._served.writer.written()
        self._find_lost_at = time.monotonic() + LOOK_EVERY

    async def _bring_forward(self, seconds: float) -> None:
        log.warning("the clock was set back by %.0f s: redeliveries moved forward", seconds)
        await self._due_times.bring_forward(seconds)


def _clock() -> float:
    """Return when this machine booted, in seconds since 1970: changes only if the clock is set."""
    return time.time() - time.monotonic()
