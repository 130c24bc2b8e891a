"""The event loop: virtual time, no sockets, no threads, and processes that can be killed.

A process is a context variable: whatever runs in it, or was scheduled by it, belongs to it. Nothing
of a killed process ever runs again, not even a `finally`, as with SIGKILL.
"""

import asyncio
import heapq
import itertools
from collections import deque
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
        self.waiting: list[Handle] = []

    def __repr__(self) -> str:
        return f"{self.name}/{self.pid}"


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class Handle:
    """A callback to run. Those of asyncio take twice as long."""

    __slots__ = ("args", "callback", "context", "gone", "moment")

    def __init__(
        self, moment: float, callback: Callable[..., Any], args: Any, context: Context
    ) -> None:
        self.moment = moment
        self.callback = callback
        self.args = args
        self.context = context
        self.gone = False

    def cancel(self) -> None:
        self.gone = True

    def cancelled(self) -> bool:
        return self.gone

    def when(self) -> float:
        return self.moment


class _Task(asyncio.Task[Any]):
    """Hashed by its number: sets of tasks have the same order in every run."""

    _numbers = itertools.count()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._number = next(_Task._numbers)
        super().__init__(*arguments, **options)

    def __hash__(self) -> int:
        return self._number


class Loop(asyncio.BaseEventLoop):
    """Runs until its main coroutine ends.

    Args:
        in_thread: called with a function that asyncio would run in a thread; returns the seconds
            that it takes.
    """

    def __init__(self, clock: Clock, in_thread: Callable[[Callable[..., Any]], float]) -> None:
        super().__init__()
        self._clock = clock
        self._in_thread = in_thread
        self._busy: dict[Any, float] = {}
        self._soon: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._numbers = itertools.count()
        _Task._numbers = itertools.count()
        self.set_task_factory(lambda loop, coro, **kw: _Task(coro, loop=loop, **kw))
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        return self._clock.elapsed

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(0.0, callback, args, copy_context() if context is None else context)
        self._soon.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Handle:
        return self.call_at(self._clock.elapsed + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(when, callback, args, copy_context() if context is None else context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def _run_once(self) -> None:
        soon, timers, clock = self._soon, self._timers, self._clock
        if not soon:
            while timers and timers[0][2].gone:
                heapq.heappop(timers)
            if not timers:
                raise Stuck
            clock.elapsed = max(clock.elapsed, timers[0][0])
        while timers and timers[0][0] <= clock.elapsed:
            soon.append(heapq.heappop(timers)[2])
        for _ in range(len(soon)):
            handle = soon.popleft()
            if not handle.gone:
                self._run(handle)

    def _run(self, handle: Handle) -> None:
        process = handle.context.get(PROCESS)
        if process is not None:
            if process.dead:
                return
            if process.frozen:
                process.waiting.append(handle)
                return
        try:
            handle.context.run(handle.callback, *handle.args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as asyncio's handles do
            self.call_exception_handler({"message": "in a callback", "exception": error})

    def forget(self) -> None:
        """Let go of all that was still to happen."""
        self._soon.clear()
        self._timers.clear()
        del self._in_thread
        self.close()

    def _process_events(self, _: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

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
            self._soon.append(handle)
        process.waiting = []
