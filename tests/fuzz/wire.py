"""A connection in this process: the bytes of an input become calls of an asyncio protocol.

An input may contain marks: `<cut>` ends what arrives at once, `<repeat>` lets what precedes it
arrive again and again (once in an input), `<late>` lets an hour pass, `<reset>` breaks the
connection.
"""

import asyncio
import atexit
import gc
import logging
import re
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, TypeVar

MARKS = (b"<cut>", b"<repeat>", b"<late>", b"<reset>")
_MARK = re.compile(b"(%s)" % b"|".join(MARKS))
_REPEATS = 64
_REPEATED = 4096  # minimum bytes that arrive at once when they arrive again and again
_GROWTH = 128 * 1024  # maximum bytes of memory that repeats may take

seldom = False  # let only one in 16 inputs repeat what arrives: that takes a hundred times as long

_T = TypeVar("_T")


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still, and that collects errors.

    Attributes:
        now: the time in seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._real = False
        self.now = super().time()
        self._errors: list[str] = []
        self.set_exception_handler(lambda _, context: self._errors.append(str(context)))
        atexit.register(self.close)

    def time(self) -> float:
        return super().time() if self._real else self.now

    @contextmanager
    def real_time(self) -> Iterator[None]:
        """Let the clock run."""
        self._real = True
        yield
        self._real = False

    async def settle(self) -> None:
        """Return when nothing is left to do at this time."""
        ready: Any = self._ready  # type: ignore[attr-defined]
        for _ in range(10_000):
            await asyncio.sleep(0)
            if not ready:
                return
        raise AssertionError("it never comes to rest")

    async def pass_hour(self) -> None:
        self.now += 3600
        await self.settle()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return its result. Raise if there was an error, logged or not, or if a timer is left."""
        handler = _Collect(self._errors)
        logging.getLogger().addHandler(handler)
        try:
            result = self.run_until_complete(work)
        finally:
            logging.getLogger().removeHandler(handler)
            errors, self._errors[:] = list(self._errors), []
            timers: Any = self._scheduled  # type: ignore[attr-defined]
            left = [timer for timer in timers if not timer.cancelled()]
            for timer in left:
                timer.cancel()
        assert not errors, errors
        assert not left, left
        return result


@cache
def loop() -> Loop:
    """Return the loop that all targets share."""
    return Loop()


class _Collect(logging.Handler):
    """Collects logged errors."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        # Malformed bodies and damaged journals are errors of the input.
        if record.name.startswith("python_multipart") or "damaged" in record.msg:
            return
        self._errors.append(logging.Formatter().format(record))


class Transport(asyncio.Transport):
    """Counts what the protocol writes, and closes as a socket's transport does."""

    def __init__(self, loop: Loop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.written: Counter[bytes] = Counter()
        self.paused = False
        self.closing = False
        self._loop = loop
        self._protocol = protocol
        self._lost = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 1234), "sockname": ("192.0.2.2", 80)}.get(name, default)

    def write(self, data: Any) -> None:
        if not self._lost:
            self.written[bytes(data)] += 1

    def close(self) -> None:
        self.lose(None)

    def abort(self) -> None:
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        """Close the connection: the protocol learns of it in the loop's next round."""
        if not self.closing:
            self.closing = True
            self._loop.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        self._lost = True
        self._protocol.connection_lost(error)

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0


async def play(loop: Loop, protocol: asyncio.Protocol, transport: Transport, data: bytes) -> None:
    """Let the bytes arrive as their marks say, then end the connection."""

    async def arrive(piece: bytes) -> bool:
        if transport.closing or transport.paused:  # a socket would not read
            return False
        if piece:
            protocol.data_received(piece)
            await loop.settle()
        return True

    piece, repeated = b"", seldom and zlib.crc32(data) % 16 > 0
    for part in _MARK.split(data):
        if part == b"<late>":
            await loop.pass_hour()
        elif part == b"<reset>":
            transport.lose(ConnectionResetError())
            await loop.settle()
        elif part == b"<repeat>" and piece and not repeated:
            repeated = True
            await _stays_small(partial(arrive, piece))
        elif part not in MARKS:
            await arrive(part)
            piece = part * -(-_REPEATED // max(1, len(part)))
    if not transport.closing:
        protocol.eof_received()
        transport.close()
    await loop.settle()


def in_one_piece(data: bytes) -> bytes | None:
    """Return the input without its cuts; None if it has other marks, too, or no cut."""
    whole = data.replace(b"<cut>", b"")
    return None if whole == data or _MARK.search(whole) else whole


async def _stays_small(arrive: Callable[[], Awaitable[bool]]) -> None:
    """Raise if memory grows with what arrives."""
    await arrive()  # fills caches
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(_REPEATS):
            if not await arrive():
                return
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
        assert grown < _GROWTH, f"{grown} bytes more in memory after {_REPEATS} repeats"
    finally:
        tracemalloc.stop()
