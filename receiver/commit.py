"""Group commit: all events that wait for a partition are appended together, then all are answered.

While one batch is on its way to Redis the next one gathers, so the batches grow with the load and
a lone event waits for nobody.
"""

import asyncio
import logging
from collections.abc import Sequence

from redis import Redis

from offhook import queues
from offhook.errors import InboxUnavailable
from offhook.event import CallEvent
from offhook.inbox import Inbox, partition_of

log = logging.getLogger("offhook.receiver")

MAX_BATCH = 500  # events; one run of the script blocks Redis for about 5 ms at most


class GroupCommit:
    """Appends events to the inbox, many requests at a time.

    Args:
        inbox: where they go.
        rq: a blocking client, to call workers with.
        handlers: whose dispatches are to be called when events come.
        duplicate_window: seconds.
    """

    def __init__(
        self, inbox: Inbox, rq: Redis, handlers: Sequence[str], duplicate_window: float
    ) -> None:
        self._inbox = inbox
        self._rq = rq
        self._handlers = handlers
        self._window = duplicate_window
        self._waiting: list[list[tuple[str, CallEvent, asyncio.Future[bool]]]] = [
            [] for _ in range(inbox.partitions)
        ]
        self._running: list[asyncio.Task[None] | None] = [None] * inbox.partitions
        self._wakes: set[asyncio.Task[None]] = set()

    async def append(self, fingerprint: str, event: CallEvent) -> bool:
        """Return when the inbox holds the event. False: it already did, this is a repeat.

        Raises:
            InboxUnavailable: it does not.
        """
        partition = partition_of(event, self._inbox.partitions)
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[partition].append((fingerprint, event, done))
        if self._running[partition] is None:
            self._running[partition] = asyncio.create_task(self._run(partition))
        return await done

    async def close(self) -> None:
        """Return when nothing is on its way any more."""
        for running in self._running:
            if running is not None:
                await running
        for wake in list(self._wakes):  # those that the last batches called, too
            await wake

    async def _run(self, partition: int) -> None:
        waiting = self._waiting[partition]
        try:
            while waiting:
                batch = waiting[:MAX_BATCH]
                del waiting[:MAX_BATCH]
                await self._append(partition, batch)
        finally:
            self._running[partition] = None

    async def _append(
        self, partition: int, batch: list[tuple[str, CallEvent, asyncio.Future[bool]]]
    ) -> None:
        try:
            repeats, wake = await self._inbox.append(
                partition,
                [(fingerprint, event) for fingerprint, event, _ in batch],
                self._handlers,
                self._window,
            )
        except Exception as error:
            if not isinstance(error, InboxUnavailable):
                log.exception("appending to the inbox failed in a way nobody thought of")
                error = InboxUnavailable(str(error))
            for _, _, done in batch:
                if not done.done():
                    done.set_exception(error)
            return
        for index, (_, _, done) in enumerate(batch):
            if not done.done():
                done.set_result(index not in repeats)
        if wake:
            task = asyncio.create_task(self._wake(partition, wake))
            self._wakes.add(task)
            task.add_done_callback(self._wakes.discard)

    async def _wake(self, partition: int, handlers: list[str]) -> None:
        try:
            await asyncio.to_thread(self._enqueue, partition, handlers)
        except Exception:
            # The events are safe; the scheduler's sweep finds within seconds what is not awake.
            log.exception("calling the workers failed; the sweep will")

    def _enqueue(self, partition: int, handlers: list[str]) -> None:
        for handler in handlers:
            queues.wake(self._rq, handler, partition)
