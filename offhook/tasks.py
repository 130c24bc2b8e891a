"""asyncio tasks: ending them reliably or after a time limit, and waking one that waits."""

import asyncio
from typing import Any


async def end(*tasks: "asyncio.Task[Any]", again: float = 0.2) -> None:
    """Cancel tasks, and return once they have ended.

    On Python 3.11 a cancellation can get lost: in `asyncio.wait_for`, which redis-py uses to send,
    and before 3.11.3 in the package async_timeout, which it uses for timeouts. So cancel again.

    Args:
        again: seconds after which a task is cancelled again. More for a task that ends tasks of its
            own: another cancellation would leave them behind.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=again)


def asked_to_end() -> bool:
    """Return whether the running task was cancelled, even if the cancellation got lost."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def woken(wake: asyncio.Event, seconds: float) -> bool:
    """Wait until an event is set, and clear it. Return False if it was not set in time."""
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return False
    wake.clear()
    return True


class Limit:
    """A context that cancels the task in it after a time, with one timer for all tasks in it.

    `asyncio.timeout` starts and stops a timer for each task. That is half the cost of a delivery to
    a handler that does nothing.

    A task may be in it once at a time. The limit is the same for all, so the oldest is late first.

    Raises:
        LimitExceeded: on leaving, in the task that was cancelled.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # task -> its deadline, and how often it had been cancelled before; the oldest first
        self._running: dict[asyncio.Task[Any], tuple[float, int]] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None  # the loop that has the timer

    def __enter__(self) -> None:
        loop = self._loop  # to ask for the running one takes longer than all the rest
        task = asyncio.current_task(loop) if loop is not None else None
        if loop is None or task is None:  # there is no timer, or it is of a loop that has ended
            self._loop = loop = asyncio.get_running_loop()
            task = asyncio.current_task()
            loop.call_later(self._seconds, self._look)
        assert task is not None  # noqa: S101 - an event loop runs only tasks
        self._running[task] = (loop.time() + self._seconds, task.cancelling())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101
        cancelled = self._running.pop(task)[1]
        if task in self._late:
            self._late.remove(task)
            # A task that was also cancelled from elsewhere must end.
            if task.uncancel() <= cancelled and kind is asyncio.CancelledError:
                raise LimitExceeded from error

    def _look(self) -> None:
        """Cancel the tasks that are late, and set the timer for the next one."""
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
    """The task took too long."""
