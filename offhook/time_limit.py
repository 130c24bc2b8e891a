"""`Limit`: a time limit for many tasks at once, with one timer for all of them.

Most deliveries end in time. `asyncio.timeout` sets a timer for each and takes it back: half of what
it takes to deliver to a handler that does nothing.
"""

import asyncio
from types import TracebackType
from typing import Any


class Limit:
    """A context in which a task may be for so many seconds; then it is cancelled.

    One task is in it at most once. All have the same time, so the oldest is the first that is late.

    Raises:
        LimitExceeded: on leaving, to the task that was cancelled for it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # task -> until when it may run, and how often it was cancelled before; the oldest first
        self._running: dict[asyncio.Task[Any], tuple[float, int]] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None  # the one that has the timer

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - only tasks have an `async with`
        loop = asyncio.get_running_loop()
        self._running[task] = (loop.time() + self._seconds, task.cancelling())
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(self._seconds, self._look)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        _, cancelled = self._running.pop(task)
        if task in self._late:
            self._late.remove(task)
            # Cancelled by somebody else, too: then it must end.
            if task.uncancel() <= cancelled and kind is asyncio.CancelledError:
                raise LimitExceeded from error

    def _look(self) -> None:
        """Cancel who is late, and come back when the next one is."""
        loop, self._loop = self._loop, None
        assert loop is not None  # noqa: S101
        for task, (until, _) in self._running.items():
            if task in self._late:
                continue
            if until > loop.time():
                self._loop = loop
                loop.call_at(until, self._look)
                return
            self._late.add(task)
            task.cancel()


class LimitExceeded(Exception):
    """It took too long."""
