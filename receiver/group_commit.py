"""Group commit: events that wait for the same partition are stored in one batch.

The next batch gathers while one is being stored, so batches grow with the load and a single event
never waits.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from offhook.errors import InboxUnavailable
from offhook.event import CallEvent, to_stored
from offhook.inbox import partition_of

log = logging.getLogger("offhook.receiver")

MAX_BATCH = 500  # events; one run of the script blocks Redis for at most about 5 ms
# Maximum events waiting in a partition: more than arrive before a Redis timeout. Past that, the
# disk hangs and most clients have given up.
MAX_WAITING = 50_000

Put = Callable[[int, Sequence[tuple[str, bytes]]], Awaitable[set[int]]]
Done = Callable[[bool | InboxUnavailable], None]
_Waiting = list[tuple[str, bytes, Done]]


class GroupCommit:
    """Stores the events of many requests at a time.

    Args:
        put: stores a batch of one partition, pairs of a fingerprint and a stored event, and returns
            the indices of the repeats.
        partitions: number of partitions.
        max_waiting: maximum events waiting in a partition.
    """

    def __init__(self, put: Put, partitions: int, max_waiting: int = MAX_WAITING) -> None:
        self._put = put
        self._max_waiting = max_waiting
        self._waiting: list[_Waiting] = [[] for _ in range(partitions)]
        self._running: list[asyncio.Task[None] | None] = [None] * partitions

    def submit(self, fingerprint: str, event: CallEvent, done: Done) -> None:
        """Store the event and call `done` with the outcome.

        Args:
            done: called with True when it is stored, False when it is a repeat, or the error.
        """
        partition = partition_of(event, len(self._waiting))
        if len(self._waiting[partition]) >= self._max_waiting:
            done(InboxUnavailable(f"{self._max_waiting} events are already waiting to be stored"))
            return
        # Encoded here, while the event is still in the CPU cache: hundreds may wait.
        self._waiting[partition].append((fingerprint, to_stored(event), done))
        if self._running[partition] is None:
            self._running[partition] = asyncio.create_task(self._run(partition))

    async def close(self) -> None:
        """Return when no batch is being stored."""
        for running in self._running:
            if running is not None:
                await running

    async def _run(self, partition: int) -> None:
        waiting = self._waiting[partition]
        try:
            while waiting:
                await asyncio.sleep(0)  # lets requests that were just read join the batch
                batch = waiting[:MAX_BATCH]
                del waiting[:MAX_BATCH]
                await self._store(partition, batch)
        finally:
            self._running[partition] = None

    async def _store(self, partition: int, batch: _Waiting) -> None:
        try:
            repeats = await self._put(partition, [(mark, stored) for mark, stored, _ in batch])
        except Exception as error:
            if not isinstance(error, InboxUnavailable):
                log.exception("unexpected error while storing events")
                error = InboxUnavailable(str(error))
            for _, _, done in batch:
                _tell(done, error)
            return
        for index, (_, _, done) in enumerate(batch):
            _tell(done, index not in repeats)


def _tell(done: Done, outcome: bool | InboxUnavailable) -> None:
    try:
        done(outcome)
    except Exception:  # must not keep the rest of the batch from its responses
        log.exception("cannot send a response")
