"""Steps: what a coroutine of a delivery does between two suspensions, watched from outside.

The page is memory that the RQ worker shares with the process it forks. It names the handler and the
event of the step that runs now, so that the worker knows which one blocks or has crashed.
"""

import mmap
import struct
import sys
import time
from collections.abc import Coroutine, Generator
from typing import IO, Any, Generic, NamedTuple, Protocol, TypeVar

T = TypeVar("T")

_SIZE = 4096
_TIMES = struct.Struct("=dd")  # when the loop last ran freely, when the step began (0: none runs)
_NAME_AT = _TIMES.size
_PLAIN_AT = 2048
_NAME = struct.Struct("=H")


class Running(NamedTuple):
    """What the page says.

    Attributes:
        looped: when the event loop last ran its own timer.
        since: when the step began, 0 if none runs. Both by `time.monotonic()`.
        about: handler, event id and call, or the last ones.
        plain: the same of a delivery in a thread, empty if none runs.
    """

    looped: float
    since: float
    about: tuple[str, ...]
    plain: tuple[str, ...]


class StepPage:
    """A page of shared memory. Create it before the fork."""

    def __init__(self) -> None:
        self.stacks: IO[bytes] | None = None  # where `faulthandler` writes
        self._memory = mmap.mmap(-1, _SIZE)
        self._times = memoryview(self._memory)[:_NAME_AT].cast("d")

    def tick(self) -> None:
        """Note that the event loop runs."""
        self._times[0] = time.monotonic()

    def begin(self, now: float) -> None:
        self._times[1] = now

    def end(self) -> None:
        self._times[1] = 0.0

    def about(self, handler: str, event_id: str, call: str) -> None:
        """Name the delivery whose steps follow."""
        self._write(_NAME_AT, f"{handler}\0{event_id}\0{call}")

    def plain(self, handler: str, event_id: str, call: str) -> None:
        """Name the delivery that begins in a thread."""
        self._write(_PLAIN_AT, f"{handler}\0{event_id}\0{call}")

    def plain_ended(self) -> None:
        """Note that no delivery runs in a thread, or that it is not known which one does."""
        _NAME.pack_into(self._memory, _PLAIN_AT, 0)

    def read(self) -> Running:
        looped, since = _TIMES.unpack_from(self._memory)
        return Running(looped, since, self._name(_NAME_AT), self._name(_PLAIN_AT))

    def clear(self) -> None:
        """Forget what it says, before a new process uses it."""
        self._memory[:] = bytes(_SIZE)

    def _write(self, at: int, name: str) -> None:
        encoded = name.encode()[:1024]
        end = at + _NAME.size + len(encoded)
        self._memory[at:end] = len(encoded).to_bytes(_NAME.size, sys.byteorder) + encoded

    def _name(self, at: int) -> tuple[str, ...]:
        (length,) = _NAME.unpack_from(self._memory, at)
        at += _NAME.size
        name = self._memory[at : at + length].decode(errors="replace")
        return tuple(name.split("\0")) if name else ()


class StepScheduler(Protocol):
    """Runs the steps of many deliveries, one at a time."""

    def suspended(self) -> None: ...
    def resumed(self) -> None: ...
    def took(self, handler: Any, seconds: float) -> None: ...


LONG = 0.001  # seconds; a step that takes longer is reported


class Steps(Generic[T]):
    """Awaits a coroutine and reports each of its steps; the result is the coroutine's.

    Args:
        handler: whose delivery it is.
    """

    __slots__ = ("_about", "_coroutine", "_handler", "_page", "_scheduler")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        handler: Any,
        about: tuple[str, str, str],
        page: StepPage,
        scheduler: StepScheduler,
    ) -> None:
        self._coroutine = coroutine
        self._handler = handler
        self._about = about
        self._page = page
        self._scheduler = scheduler

    def __await__(self) -> Generator[Any, Any, T]:
        send, throw = self._coroutine.send, self._coroutine.throw
        page, scheduler, monotonic = self._page, self._scheduler, time.monotonic
        value: Any = None
        error: BaseException | None = None
        while True:
            page.about(*self._about)
            began = monotonic()
            page.begin(began)
            try:
                future = send(value) if error is None else throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                page.end()
                took = monotonic() - began
                if took > LONG:
                    scheduler.took(self._handler, took)
            scheduler.suspended()
            try:
                value, error = (yield future), None
            except BaseException as raised:  # noqa: BLE001 - passed on to the coroutine
                value, error = None, raised
            scheduler.resumed()
