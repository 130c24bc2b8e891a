"""The store: where an event is safe. The inbox; or the journal, while Redis cannot take events.

Once one batch has gone to the journal all later ones do, until the journal is drained: so the order
stays, and a Redis that is away costs only the first batch its patience.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence

import msgspec
from redis import Redis
from redis.exceptions import RedisError

from offhook import queues
from offhook.errors import InboxUnavailable
from offhook.event import CallEvent, new_event_id, to_stored
from offhook.inbox import Batch, Inbox
from offhook.settings import Settings, config_path
from receiver.journal import open_journals

log = logging.getLogger("offhook.receiver")

_TRY_EVERY = 0.5  # seconds between two looks for Redis
_DRAIN_PATIENCE = 10.0  # seconds for a batch from the journal: nobody waits for it


class Store:
    """Takes batches of events, whatever state Redis is in.

    Args:
        settings: the configuration.
        inbox: where events belong.
        rq: a blocking client, to call workers with.

    Raises:
        ConfigError: the journal's folder cannot be written.
    """

    def __init__(self, settings: Settings, inbox: Inbox, rq: Redis) -> None:
        self._settings = settings
        self._inbox = inbox
        self._rq = rq
        self._handlers = list(settings.handlers)
        self._writer = new_event_id()
        self._numbers = [0] * inbox.partitions
        self._recent = _Recent(settings.duplicate_window)
        folder = config_path().parent / settings.journal
        self._journals = open_journals(folder, settings.journal_size)
        self._journal = self._journals[-1]
        self._appending = 0  # batches on their way into the journal
        self._wakes: set[asyncio.Task[None]] = set()
        self.takes_directly = False  # the inbox is there and the journal is empty
        self._behind = asyncio.Event()
        self._behind.set()
        self.trouble = ""  # why Redis cannot take events

    @property
    def fault(self) -> str | None:
        """Why an event could not be stored at all, the last time that was so."""
        return self._journal.fault

    @property
    def journal_size(self) -> int:
        """The bytes of events that Redis does not have yet."""
        return sum(journal.size for journal in self._journals)

    async def put(self, partition: int, events: Sequence[tuple[str, CallEvent]]) -> set[int]:
        """Return when the events are safe. The caller awaits one put per partition at a time.

        Args:
            events: pairs of a fingerprint, equal for what is a repeat, and the event.

        Returns:
            The indices of those that are repeats.

        Raises:
            InboxUnavailable: they are not safe; nothing has become of them.
        """
        self._numbers[partition] += 1
        marks = [mark for mark, _ in events]
        batch = Batch(
            writer=self._writer,
            number=self._numbers[partition],
            partition=partition,
            marks=marks,
            events=[msgspec.Raw(to_stored(event)) for _, event in events],
        )
        if self.takes_directly:
            try:
                repeats = await self._send(batch, self._settings.patience)
            except InboxUnavailable as error:
                self._turn_to_journal(error)
                # Perhaps only the answer was lost: with the same number it is appended once.
                await self._keep(batch)
                repeats = set()
            self._recent.repeats_of(marks)
            return repeats
        repeats = self._recent.repeats_of(marks)
        fresh = [index for index in range(len(marks)) if index not in repeats]
        if fresh:
            # By the time it is drained, marks would tell nothing about when these came.
            ids = [events[index][1].id for index in fresh]
            stored = [batch.events[index] for index in fresh]
            await self._keep(msgspec.structs.replace(batch, marks=ids, events=stored))
        return repeats

    async def run(self) -> None:
        """Bring to the inbox what lies in the journal, whenever something does. Runs for ever."""
        while True:
            await self._behind.wait()
            try:
                await self._catch_up()
            except (InboxUnavailable, RedisError, OSError) as error:
                self._say(str(error))
                await asyncio.sleep(_TRY_EVERY)

    async def close(self) -> None:
        """Return when nothing is on its way any more. What is in the journal stays there."""
        for task in list(self._wakes):
            await task
        for journal in self._journals:
            journal.close()

    async def _catch_up(self) -> None:
        # A handler's cursor must be there before the first event that it should get.
        for name, handler in self._settings.handlers.items():
            await self._inbox.ensure_cursor(name, handler.start)
        await self._inbox.redis.ping()
        waiting = self.journal_size
        for journal in list(self._journals):
            await journal.drain(self._drain)
            if journal is not self._journal:
                journal.close()
                self._journals.remove(journal)
        if self._appending or not self._journal.is_empty:
            return
        self._behind.clear()
        self.takes_directly = True
        if self.trouble or waiting:
            log.warning("Redis takes events again; %s bytes of the journal are in it", waiting)
        self.trouble = ""

    async def _drain(self, batch: Batch) -> None:
        await self._send(batch, _DRAIN_PATIENCE)

    async def _send(self, batch: Batch, patience: float) -> set[int]:
        try:
            async with asyncio.timeout(patience):
                repeats, wake = await self._inbox.append(
                    batch, self._handlers, self._settings.duplicate_window
                )
        except TimeoutError as error:
            raise InboxUnavailable(f"Redis did not answer within {patience:g} s") from error
        if wake:
            task = asyncio.create_task(self._wake(batch.partition, wake))
            self._wakes.add(task)
            task.add_done_callback(self._wakes.discard)
        return repeats

    async def _keep(self, batch: Batch) -> None:
        self._appending += 1
        try:
            await self._journal.append(batch)
        finally:
            self._appending -= 1

    def _turn_to_journal(self, error: InboxUnavailable) -> None:
        self.takes_directly = False
        self._behind.set()
        self._say(str(error))

    def _say(self, trouble: str) -> None:
        """Log why, once for each reason."""
        if trouble != self.trouble:
            self.trouble = trouble
            log.error("%s; events go to the journal until it does", trouble)

    async def _wake(self, partition: int, handlers: list[str]) -> None:
        try:
            for handler in handlers:
                await asyncio.to_thread(queues.wake, self._rq, handler, partition)
        except Exception:
            # The events are safe; the scheduler's sweep finds within seconds what is not awake.
            log.exception("calling the workers failed; the sweep will")


class _Recent:
    """The marks of the last seconds: to tell repeats by while Redis cannot."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._marks: OrderedDict[str, float] = OrderedDict()  # mark -> until when

    def repeats_of(self, marks: Sequence[str]) -> set[int]:
        """The indices of the marks that came within the window before; the others come now."""
        if not self._window:
            return set()
        now = time.monotonic()
        while self._marks and next(iter(self._marks.values())) <= now:
            self._marks.popitem(last=False)
        repeats = set()
        for index, mark in enumerate(marks):
            if mark in self._marks:
                repeats.add(index)
            else:
                self._marks[mark] = now + self._window
        return repeats
