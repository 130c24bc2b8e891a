"""Group commit: events that wait for the same partition are stored in one batch.

The next batch gathers while one is being stored, so batches grow with the load and a single event
never waits.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from offhook.errors import InboxUnavailable
from offhook.event import CallEvent, to_stored
from offhook.inbox import partition_of

log = logging.getLogger("offhook.receiver")

MAX_BATCH = 500  # events; one run of the script blocks Redis for at most about 5 ms
# Maximum events waiting in a partition: more than arrive before a Redis timeout. Past that, the
# disk hangs and most clients have given up.
MAX_WAITING = 50_000
_SHARE = 10  # a tenant may have one part in so many of these waiting

Put = Callable[[int, Sequence[tuple[str, bytes]], Sequence[str]], Awaitable[set[int]]]
Done = Callable[[bool | InboxUnavailable], None]


class _Event(NamedTuple):
    mark: str
    stored: bytes
    tenant: str
    done: Done


class _Waiting:
    """The events that wait for one partition, by tenant."""

    def __init__(self) -> None:
        self._of: dict[str, list[_Event]] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def count(self, tenant: str) -> int:
        """Return how many events of a tenant wait."""
        return len(self._of.get(tenant, ()))

    def add(self, event: _Event) -> None:
        self._of.setdefault(event.tenant, []).append(event)

    def take(self) -> list[_Event]:
        """Take the next batch: of each tenant alike, so that none waits for another's flood."""
        batch: list[_Event] = []
        while self._of and len(batch) < MAX_BATCH:
            share = max(1, (MAX_BATCH - len(batch)) // len(self._of))
            for tenant in list(self._of)[: MAX_BATCH - len(batch)]:
                waiting = self._of.pop(tenant)
                batch += waiting[:share]
                if len(waiting) > share:
                    self._of[tenant] = waiting[share:]  # as the last to have its next turn
        return batch


class GroupCommit:
    """Stores the events of many requests at a time.

    Args:
        put: stores a batch of one partition, pairs of a fingerprint and a stored event and the
            tenant of each, and returns the indices of the repeats.
        partitions: number of partitions.
        max_waiting: maximum events of the operator waiting in a partition; of a tenant, a tenth.
    """

    def __init__(self, put: Put, partitions: int, max_waiting: int = MAX_WAITING) -> None:
        self._put = put
        self._max_waiting = max_waiting
        self._waiting = [_Waiting() for _ in range(partitions)]
        self._running: list[asyncio.Task[None] | None] = [None] * partitions

    def submit(self, fingerprint: str, event: CallEvent, done: Done) -> None:
        """Store the event and call `done` with the outcome.

        Args:
            done: called with True when it is stored, False when it is a repeat, or the error.
        """
        partition, tenant = partition_of(event, len(self._waiting)), event.tenant
        most = self._max_waiting // _SHARE if tenant else self._max_waiting
        if self._waiting[partition].count(tenant) >= most:
            done(InboxUnavailable(f"{most} events are already waiting to be stored"))
            return
        # Encoded here, while the event is still in the CPU cache: hundreds may wait.
        self._waiting[partition].add(_Event(fingerprint, to_stored(event), tenant, done))
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
                await self._store(partition, waiting.take())
        finally:
            self._running[partition] = None

    async def _store(self, partition: int, batch: Sequence[_Event]) -> None:
        events = [(each.mark, each.stored) for each in batch]
        tenants = [each.tenant for each in batch]
        try:
            repeats = await self._put(partition, events, tenants if any(tenants) else ())
        except Exception as error:
            if not isinstance(error, InboxUnavailable):
                log.exception("unexpected error while storing events")
                error = InboxUnavailable(str(error))
            for each in batch:
                _tell(each.done, error)
            return
        for index, each in enumerate(batch):
            _tell(each.done, index not in repeats)


def _tell(done: Done, outcome: bool | InboxUnavailable) -> None:
    try:
        done(outcome)
    except Exception:  # must not keep the rest of the batch from its responses
        log.exception("cannot send a response")
