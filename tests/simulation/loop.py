"""The event loop: virtual time, no sockets, no threads, and processes that can be killed.

A process is a context variable: whatever runs in it, or was scheduled by it, belongs to it. Nothing
of a killed process ever runs again, not even a `finally`, as with SIGKILL.
"""

import asyncio
import heapq
import itertools
from asyncio import events
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

from tests.simulation.clock import Clock


class Stuck(Exception):
    """Nothing is left that could ever happen."""


class Process:
    """A simulated process.

    Attributes:
        dead: it was killed.
        frozen: it does not run, as after SIGSTOP; what is ready waits.
    """

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self.dead = False
        self.frozen = False
        self.waiting: list[events.Handle] = []

    def __repr__(self) -> str:
        return f"{self.name}/{self.pid}"


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


def _may_run(handle: Any) -> bool:
    process = handle._context.get(PROCESS)
    if process is None:
        return True
    if process.dead:
        return False
    if process.frozen:
        process.waiting.append(handle)
        return False
    return True


class _Handle(events.Handle):
    def _run(self) -> None:
        if _may_run(self):
            super()._run()


class _Timer(events.TimerHandle):
    def _run(self) -> None:
        if _may_run(self):
            super()._run()


class _Task(asyncio.Task[Any]):
    """Hashed by its number: sets of tasks have the same order in every run."""

    _numbers = itertools.count()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._number = next(_Task._numbers)
        super().__init__(*arguments, **options)

    def __hash__(self) -> int:
        return self._number


class _Selector:
    """Waits for nothing: lets the time pass until the next timer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck
        if timeout > 0:
            self._clock.elapsed += timeout
        return []


class Loop(asyncio.BaseEventLoop):
    """Runs until its main coroutine ends.

    Args:
        in_thread: called with a function that asyncio would run in a thread; returns the seconds
            that it takes.
    """

    def __init__(self, clock: Clock, in_thread: Callable[[Callable[..., Any]], float]) -> None:
        super().__init__()
        self._clock = clock
        self._selector = _Selector(clock)
        self._in_thread = in_thread
        self._busy: dict[Any, float] = {}
        self._clock_resolution = 1e-9
        _Task._numbers = itertools.count()
        self.set_task_factory(lambda loop, coro, **kw: _Task(coro, loop=loop, **kw))
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        return self._clock.elapsed

    def _process_events(self, _: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _call_soon(self, callback: Any, args: Any, context: Context | None) -> events.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> events.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> Any:
        """Run the function here, once the time that it takes has passed."""
        future = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except BaseException as error:  # noqa: BLE001 - passed on to the caller
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        # An executor with one thread does one thing after the other.
        when = max(self.time(), self._busy.get(executor, 0.0)) + self._in_thread(func)
        if executor is not None:
            self._busy[executor] = when
        self.call_at(when, work)
        return future

    def spawn(self, process: Process, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run a coroutine as part of a process."""
        context = copy_context()
        context.run(PROCESS.set, process)
        return context.run(self.create_task, work)

    def freeze(self, process: Process) -> None:
        process.frozen = True

    def thaw(self, process: Process) -> None:
        process.frozen = False
        for handle in process.waiting:
            self._ready.append(handle)  # type: ignore[attr-defined]
        process.waiting = []
