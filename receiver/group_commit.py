"""Group commit: all events that wait for a partition are stored together, then all are answered.

While one batch is on its way the next one gathers, so the batches grow with the load and a lone
event waits for nobody.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from offhook.errors import InboxUnavailable
from offhook.event import CallEvent, to_stored
from offhook.inbox import partition_of

log = logging.getLogger("offhook.receiver")

MAX_BATCH = 500  # events; one run of the script blocks Redis for about 5 ms at most

# More than come while Redis has its patience. Those that wait longer wait for a disk, and most of
# their callers have given up.
MOST_WAITING = 50_000  # events of a partition

Put = Callable[[int, Sequence[tuple[str, bytes]]], Awaitable[set[int]]]
Done = Callable[[bool | InboxUnavailable], None]
_Waiting = list[tuple[str, bytes, Done]]


class GroupCommit:
    """Stores the events of many requests at a time.

    Args:
        put: stores a batch of one partition, pairs of a fingerprint and a stored event, and returns
            which of it are repeats.
        partitions: how many there are.
    """

    def __init__(self, put: Put, partitions: int) -> None:
        self._put = put
        self._waiting: list[_Waiting] = [[] for _ in range(partitions)]
        self._running: list[asyncio.Task[None] | None] = [None] * partitions

    def submit(self, fingerprint: str, event: CallEvent, done: Done) -> None:
        """Have the event stored.

        Args:
            done: called with True when it is; with False when it already was, and this is a
                repeat; with the reason when it is not.
        """
        partition = partition_of(event, len(self._waiting))
        if len(self._waiting[partition]) >= MOST_WAITING:
            done(InboxUnavailable(f"{MOST_WAITING} events wait to be stored already"))
            return
        # Encoded at once, while the processor has it in its cache: hundreds may wait.
        self._waiting[partition].append((fingerprint, to_stored(event), done))
        if self._running[partition] is None:
            self._running[partition] = asyncio.create_task(self._run(partition))

    async def append(self, fingerprint: str, event: CallEvent) -> bool:
        """Return when the event is stored. False: it already was, this is a repeat.

        Raises:
            InboxUnavailable: it is not.
        """
        stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def done(outcome: bool | InboxUnavailable) -> None:
            if stored.done():  # whoever asked has given up
                return
            if isinstance(outcome, InboxUnavailable):
                stored.set_exception(outcome)
            else:
                stored.set_result(outcome)

        self.submit(fingerprint, event, done)
        return await stored

    async def close(self) -> None:
        """Return when nothing is on its way any more."""
        for running in self._running:
            if running is not None:
                await running

    async def _run(self, partition: int) -> None:
        waiting = self._waiting[partition]
        try:
            while waiting:
                await asyncio.sleep(0)  # whoever has been read meanwhile comes along
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
                log.exception("storing events failed in a way nobody thought of")
                error = InboxUnavailable(str(error))
            for _, _, done in batch:
                _tell(done, error)
            return
        for index, (_, _, done) in enumerate(batch):
            _tell(done, index not in repeats)


def _tell(done: Done, outcome: bool | InboxUnavailable) -> None:
    try:
        done(outcome)
    except Exception:  # the others of the batch wait for their answers
        log.exception("an answer could not be sent")
