"""`Writer`: collects what was done in a partition, and writes it in batches, in order."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from redis.exceptions import RedisError

from offhook.event import CallEvent
from offhook.inbox.latency import Latencies
from offhook.inbox.partition import Changes, Partition
from offhook.inbox.record_part import AttemptMade, RecordPart
from offhook.tasks import asked_to_end
from workers.serving.lane_changes import LaneChanges
from workers.serving.streams import TenantStream

_BUSY = 500  # entries in memory from which flushes are spaced out
_SPACE = 0.004  # seconds
_SPACE_PER_COST = 50  # the same, as a multiple of what the last flush took to describe
_MOST_SPACE = 0.25  # seconds
_JOIN = 0.002  # seconds for the delivery and folding of what was read to join its flush
_AT_ONCE = 200  # streams in one flush
_MOMENT = 50  # hundredths of a second


class Writer:
    """Writes acknowledgements, changes of parked lanes, and counts of one partition.

    All of them go through one script in the order in which they were made, so that an entry is
    never both acknowledged and unparked, or neither.

    Args:
        describe: what to write of a stream.
        load: number of entries in memory.
        failed: called with an error of Redis, before the flush is repeated.

    Attributes:
        lanes: the changes of parked lanes for the next flush.
        latencies: how long deliveries took, for the next flush.
    """

    def __init__(
        self,
        partition: Partition,
        describe: Callable[[TenantStream], Any],
        load: Callable[[], int],
        failed: Callable[[RedisError], None],
    ) -> None:
        self._partition = partition
        self._describe = describe
        self._load = load
        self._failed = failed
        self._streams: list[TenantStream] = []
        self._counts: dict[tuple[str, str], int] = {}
        self._record: list[RecordPart] = []
        self._parts: dict[str, RecordPart] = {}  # of it, by tenant: those that are not full
        self.latencies = Latencies()
        self._waiting: list[asyncio.Future[bool]] = []
        self._ended = False
        self._wanted = asyncio.Event()
        self.lanes = LaneChanges(self.mark, self._wanted.set)
        self._described = self._sent = 0  # flushes
        self._cost = 0.0  # seconds that the last one took to describe

    def mark(self, stream: TenantStream) -> None:
        """Write the stream's positions with the next flush."""
        if not stream.dirty:
            stream.dirty = True
            self._streams.append(stream)
            self._wanted.set()

    def count(self, handler: str, outcome: str) -> None:
        """Add one to the handler's count of an outcome."""
        name = (handler, outcome)
        self._counts[name] = self._counts.get(name, 0) + 1
        self._wanted.set()

    def record(self, event: CallEvent, made: AttemptMade) -> None:
        """Add an attempt to the record of deliveries."""
        part = self._parts.get(event.tenant)
        if part is None or part.is_full:
            part = self._parts[event.tenant] = RecordPart(event.tenant)
            self._record.append(part)
        part.add(event, made)
        self._wanted.set()

    async def run(self) -> None:
        """Flush until cancelled.

        Raises:
            LeaseLost: another server serves the partition.
        """
        try:
            while not asked_to_end():
                await self._wanted.wait()
                awaited = self.lanes.advancing or self._waiting
                await asyncio.sleep(0 if awaited else _JOIN)
                await self._flush()
                if self._load() > _BUSY:
                    await asyncio.sleep(min(_MOST_SPACE, _SPACE + _SPACE_PER_COST * self._cost))
        finally:
            self._ended = True
            _answer(self._waiting, written=False)

    def check(self) -> None:
        """Flush though there may be nothing to write: Redis may have lost the last flush."""
        self._wanted.set()

    async def written(self) -> bool:
        """Return when all is written that was done before.

        Returns:
            False if this server does not serve the partition any more, and it may not be written.
        """
        if self._ended:
            return False
        waiting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._wanted.set()
        return await waiting

    async def arrived(self) -> bool:
        """Give the flush that is on its way a moment. Return whether it has arrived."""
        described = self._described
        for _ in range(_MOMENT):
            if self._sent >= described:
                return True
            await asyncio.sleep(0.01)
        return False

    async def _flush(self) -> None:
        self._wanted.clear()
        streams, self._streams = self._streams[:_AT_ONCE], self._streams[_AT_ONCE:]
        lanes, stored, advancing = self.lanes.take()
        changes = Changes([], lanes, stored, self._counts, self._record, self.latencies.take())
        self._counts, self._record, self._parts = {}, [], {}
        waiting: list[asyncio.Future[bool]] = []
        if self._streams:
            self._wanted.set()
        else:
            waiting, self._waiting = self._waiting, waiting
        # Described here, all at once: a lane that is parked is acknowledged in the same step.
        self._described += 1
        began = time.monotonic()
        changes.streams = [self._describe(stream) for stream in streams]
        self._cost = time.monotonic() - began
        try:
            answers = await _sent(self._partition.numbered(changes), self._failed)
        except BaseException:
            self._waiting += waiting  # `run` ends
            raise
        self._sent += 1
        for future, answer in zip(advancing, answers, strict=True):
            if not future.done():
                future.set_result(answer)
        _answer(waiting, written=True)


async def _sent(
    attempt: Callable[[], Awaitable[list[bytes]]], failed: Callable[[RedisError], None]
) -> list[bytes]:
    while True:
        try:
            return await attempt()
        except RedisError as error:
            failed(error)
            await asyncio.sleep(0.2)


def _answer(waiting: Iterable[asyncio.Future[bool]], *, written: bool) -> None:
    for each in waiting:
        if not each.done():
            each.set_result(written)
