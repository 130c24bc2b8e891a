"""Runners: tasks that work on lanes, one at a time; when one is suspended, the next one goes on.

So a delivery needs a task of its own only while its handler waits for something.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from offhook.tasks import end
from workers.serving.lanes import Work

if TYPE_CHECKING:
    from workers.serving.served import ServedHandler

MOST_OUTSTANDING = 20_000  # entries in memory, of all handlers
_SLICE = 0.0005  # seconds that deliveries may run before the event loop gets its turn
# At most; up to it as long as all else has just taken: a flood that is read and folded in many
# short steps would leave nothing for deliveries.
_LONGEST_SLICE = 0.003
_MOST_IDLE = 64  # tasks kept for later


class Runners:
    """Works on what is ready.

    Args:
        run: works on one lane or redelivery for a while.
        slow: called with a handler and the seconds that it has kept all others waiting.
        broken: called when a runner ends with an error.

    Attributes:
        outstanding: number of entries in memory.
        reserved: number of events that are being read.
        expected: number of entries that these may lead to.
        busy: number of handlers that have some.
        share: how many entries each of them may have.
        blocked: what reads on, by a call, once there is room for entries.
        wanted: the handlers that have wanted an event since the server began.
        ran: the handlers that have run since it was emptied.
    """

    def __init__(
        self,
        run: Callable[[Work], Awaitable[None]],
        slow: Callable[[Any, float], None],
        broken: Callable[[BaseException], None],
    ) -> None:
        self._run = run
        self.took = slow
        self._broken = broken
        self.outstanding = 0
        self.reserved = 0
        self.expected = 0
        self.busy = 0
        self.share = MOST_OUTSTANDING
        self.blocked: set[Callable[[], None]] = set()
        self.wanted: dict[ServedHandler, None] = {}
        self.ran: set[ServedHandler] = set()
        self._first: deque[Work] = deque()
        self._ready: deque[Work] = deque()
        self._firsts_turn = False
        self._active = 0
        self.closing = False
        self._idle: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._until = 0.0

    def start(self, work: Work, *, first: bool = False) -> None:
        """Work on this as soon as possible.

        Args:
            first: it need not wait for all else that is ready, which has every second turn.
        """
        (self._first if first else self._ready).append(work)
        if not self._active:
            self._another()

    def suspended(self) -> None:
        """Let the next runner go on, because one waits for something."""
        self._active -= 1
        if (self._first or self._ready) and not self._active:
            self._another()

    def resumed(self) -> None:
        """Count the runner again that waited."""
        self._active += 1

    @property
    def free(self) -> int:
        """How many more entries to read. Half of the most is left to handlers that are slow."""
        return MOST_OUTSTANDING // 2 - self.outstanding - self.expected

    @property
    def has_plenty(self) -> bool:
        """Return whether there are so many entries that a read for most handlers can wait."""
        return self.outstanding + self.expected > MOST_OUTSTANDING // 4

    def busier(self, by: int) -> None:
        """Count a handler that has entries now, or has none any more."""
        self.busy += by
        self.share = MOST_OUTSTANDING // max(1, self.busy)

    def unblock(self) -> None:
        """Let those read on that waited for room."""
        blocked, self.blocked = self.blocked, set()
        for read_on in blocked:
            read_on()

    @property
    def slice_is_over(self) -> bool:
        """Return whether to `pause`."""
        return time.monotonic() > self._until

    async def pause(self) -> None:
        """Give the event loop its turn."""
        began = time.monotonic()
        await asyncio.sleep(0)
        now = time.monotonic()
        self._until = now + min(max(_SLICE, now - began), _LONGEST_SLICE)

    async def close(self) -> None:
        """End all runners; what they work on is dropped."""
        self.closing = True
        await end(*self._tasks)

    def _another(self) -> None:
        self._active += 1
        while self._idle:
            wake = self._idle.pop()
            if not wake.done():  # else its runner was cancelled
                wake.set_result(None)
                return
        task = asyncio.create_task(self._work())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._broken(error)

    async def _work(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        while not (task and task.cancelling()):  # as `asked_to_end`, without looking for the task
            while not (self._first or self._ready):
                self._active -= 1
                if len(self._idle) >= _MOST_IDLE:
                    return
                wake = loop.create_future()
                self._idle.append(wake)
                await wake
                self._until = time.monotonic() + _SLICE
            # In turns, so that neither starves.
            self._firsts_turn = bool(self._first) and not (self._firsts_turn and self._ready)
            work = (self._first if self._firsts_turn else self._ready).popleft()
            self.ran.add(work.handler)
            await self._run(work)
