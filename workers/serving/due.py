"""`DueAttempts`: what becomes of redeliveries that are due: start, wait for room, or pass on."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from offhook.inbox.due_times import Begun
from workers.serving.lanes import Redelivery
from workers.serving.served import ServedHandler

if TYPE_CHECKING:
    from workers.serving.partition_server import Server
    from workers.serving.served_partition import ServedPartition

UNKNOWN_HANDLER_WAIT = 60.0  # seconds until a handler that is not served here is looked for again
AWAY_WAIT = 1.0  # seconds until a handler may have come back
POSTPONED = 0.1  # seconds
PAUSED_WAIT = 10.0, 20.0  # seconds until a paused handler may have been resumed
WAIT = 0.02  # seconds between looks whether a handler has room
POSTPONED_AT_ONCE = 1000  # redeliveries of a handler in a second, if it cannot take more


class DueAttempts:
    """Starts the attempts of one partition that have begun in Redis.

    Args:
        expect: called with a time, in seconds since 1970, at which one will be due again.

    Attributes:
        running: those that run, by handler and call.
        lost: handler and call of those that other processes began, and that were made due.
    """

    def __init__(
        self, server: "Server", served: "ServedPartition", expect: Callable[[float], None]
    ) -> None:
        self._server = server
        self._served = served
        self._expect = expect
        self.running: dict[tuple[str, str], Redelivery] = {}
        self.lost: set[tuple[str, str]] = set()

    def ended(self, work: Redelivery) -> None:
        """Note that the attempts have ended."""
        if self.running.pop((work.handler.name, work.call), None) is not None:
            work.handler.released()

    async def start(self, begun: Sequence[Begun]) -> None:
        """Start attempts as their handlers have room. Postpone those of slow handlers, so that they
        take no memory that others need.
        """
        while begun := [each for each in begun if not self._start(each)]:
            waiting = []
            for each in begun:
                handler = self._handler_of(each)
                pace = handler.pace.per_second()
                if not handler.paused and (pace is None or pace > POSTPONED_AT_ONCE):
                    waiting.append(each)
                else:
                    self._leave_for_later(each)
            begun = waiting
            await asyncio.sleep(WAIT)

    def _handler_of(self, begun: Begun) -> ServedHandler:
        handler = self._server.roster.get(begun.handler)
        assert handler is not None  # noqa: S101 - those of others are passed on
        return handler

    def _start(self, begun: Begun) -> bool:
        """Start an attempt. Return False if its handler has no room for it."""
        handler = self._server.roster.get(begun.handler)
        if handler is None or handler in self._served.away:
            self._pass_on(begun)
            return True
        if (begun.handler, begun.call) in self.running:
            return True  # it was made due twice: this event may be finished before its turn
        name = (self._served.number, begun.call)
        if name in handler.lanes and name not in handler.parked:
            self._postpone(begun, POSTPONED)  # a dead letter is retried: after events in memory
            return True
        handler.parked.setdefault(name, False)
        if handler.is_full:
            return False
        work = Redelivery(self._served, handler, begun.call, begun.stored, begun.attempt)
        work.lost = (begun.handler, begun.call) in self.lost
        self.lost.discard((begun.handler, begun.call))
        self.running[begun.handler, begun.call] = work
        handler.added()
        handler.start(work)
        return True

    def _leave_for_later(self, begun: Begun) -> None:
        handler = self._handler_of(begun)
        least, most = PAUSED_WAIT if handler.paused else (1.0, 1.0)
        spread = random.uniform(least, most + len(handler.parked) / POSTPONED_AT_ONCE)
        self._postpone(begun, handler.circuit.probe_in + spread)

    def _postpone(self, begun: Begun, seconds: float) -> None:
        """Make it due later, without counting the attempt."""
        due = time.time() + seconds
        self._served.writer.lanes.again(begun.handler, begun.call, begun.attempt - 1, due)
        self._expect(due)

    def _pass_on(self, begun: Begun) -> None:
        """Leave a redelivery to the pool of its handler; without one it waits here."""
        pool = self._server.roster.pool_of(begun.handler)
        stays = pool is None or pool == self._server.pool  # not configured, or it cannot be loaded
        known = self._server.roster.get(begun.handler) is not None
        wait = (AWAY_WAIT if known else UNKNOWN_HANDLER_WAIT) if stays else 0.0
        taker = self._server.pool if pool is None else pool
        self._served.writer.lanes.pass_on(begun.handler, begun.call, taker, time.time() + wait)
