"""The store: where an event is safe. The inbox; or the journal, while Redis cannot take events.

Once one batch has gone to the journal all later ones do, until the journal is drained: so the order
stays, and a Redis that is away costs only the first batch its patience.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import msgspec
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError

from offhook import queues
from offhook.errors import InboxUnavailable
from offhook.event import new_event_id
from offhook.inbox import Batch, Inbox
from offhook.settings import Settings, config_path
from offhook.tasks import asked_to_end
from receiver.journal import left_behind, open_journals

log = logging.getLogger("offhook.receiver")

_TRY_EVERY = 0.5  # seconds between two looks for Redis
_LOOK_EVERY = 10.0  # seconds between two looks for what a dead receiver left behind
_MOST_MARKS = (
    500_000  # about 100 MB; beyond that a repeat may pass for an event, while Redis is away
)


class EventStore:
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
        self._cursors = list(settings.cursors)
        self._writer = new_event_id()
        self._numbers = [0] * inbox.partitions
        self._appended = _Recent(settings.duplicate_window)
        self._journaled = _Recent(settings.duplicate_window)
        self._folder = config_path().parent / settings.journal
        *self._left_behind, self._journal = open_journals(
            self._folder, settings.journal_size, settings.patience
        )
        # Who holds it may append to the journal, drain it, or change where events go.
        self._turn = asyncio.Lock()
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
        return sum(journal.size for journal in (*self._left_behind, self._journal))

    async def put(self, partition: int, events: Sequence[tuple[str, bytes]]) -> set[int]:
        """Return when the events are safe. The caller awaits one put per partition at a time.

        Args:
            events: pairs of a fingerprint, equal for what is a repeat, and the stored event.

        Returns:
            The indices of those that are repeats.

        Raises:
            InboxUnavailable: they are not safe.
        """
        self._numbers[partition] += 1
        batch = Batch(
            writer=self._writer,
            number=self._numbers[partition],
            partition=partition,
            marks=[mark for mark, _ in events],
            events=[msgspec.Raw(stored) for _, stored in events],
        )
        if not self.takes_directly:
            async with self._turn:
                if not self.takes_directly:  # still
                    return await self._keep(batch)
        try:
            return await self._append(batch)
        except InboxUnavailable as error:
            async with self._turn:
                self._turn_to_journal(error)
                # Perhaps only the answer was lost: with the same number it is appended once.
                return await self._keep(batch)

    async def run(self) -> None:
        """Bring to the inbox what lies in a journal, whenever something does, until cancelled."""
        while not asked_to_end():
            try:
                if not self._left_behind:
                    async with asyncio.timeout(_LOOK_EVERY):
                        await self._behind.wait()
            except TimeoutError:
                await self._look_for_left_behind()
                continue
            try:
                await self._catch_up()
            except Exception as error:  # noqa: BLE001 - it is logged, and this must go on
                self._say(error)
                if self.fault:
                    await self._journal.probe()
                await asyncio.sleep(_TRY_EVERY)

    async def close(self) -> None:
        """Return when nothing is on its way any more. What is in the journal stays there."""
        for task in list(self._wakes):
            await task
        for journal in (*self._left_behind, self._journal):
            journal.close()

    async def _append(self, batch: Batch) -> set[int]:
        fresh = self._journaled.fresh(batch.marks)  # of the others Redis does not know
        repeats: set[int] = set()
        if fresh:
            repeats = await self._send(_only(batch, fresh), self._settings.duplicate_window)
        taken = [index for position, index in enumerate(fresh) if position not in repeats]
        self._appended.add(batch.marks[index] for index in taken)
        return set(range(len(batch.marks))) - set(taken)

    async def _keep(self, batch: Batch) -> set[int]:
        known = set(self._appended.fresh(batch.marks))
        fresh = [index for index in self._journaled.fresh(batch.marks) if index in known]
        if fresh:
            await self._journal.append(_only(batch, fresh))
            # Not before: what was not kept is no repeat when it comes again.
            self._journaled.add(batch.marks[index] for index in fresh)
        return set(range(len(batch.marks))) - set(fresh)

    async def _look_for_left_behind(self) -> None:
        """Another receiver of this folder may be gone for good, with events in its journal."""
        limit, patience = self._settings.journal_size, self._settings.patience
        try:
            found = await asyncio.to_thread(left_behind, self._folder, limit, patience)
        except OSError as error:
            log.error("the journals of other receivers cannot be looked for: %s", error.strerror)
            return
        for journal in found:
            log.warning("taking over %s bytes that a dead receiver left", journal.size)
        self._left_behind += found

    async def _catch_up(self) -> None:
        async with asyncio.timeout(self._settings.patience):
            await self._inbox.redis.ping()
        # A handler's cursor must be there before the first event that it should get.
        for name, start in self._settings.cursors.items():
            await self._inbox.ensure_cursor(name, start)
        waiting = self.journal_size
        while self._left_behind:
            oldest = self._left_behind[0]
            if await oldest.drain(self._drain):
                self._left_behind.remove(oldest)
                oldest.close()
        while not self.takes_directly:
            async with self._turn:  # in turns with what comes in: that cannot outrun this
                self.takes_directly = await self._journal.drain(self._drain)
                if self.takes_directly:
                    self._behind.clear()
        if self.trouble or waiting:
            log.warning("Redis takes events again; %s bytes of the journal are in it", waiting)
        self.trouble = ""

    async def _drain(self, batch: Batch) -> None:
        # Its repeats were left out when it came; now marks would tell nothing about when that was.
        await self._send(batch, duplicate_window=0)

    async def _send(self, batch: Batch, duplicate_window: float) -> set[int]:
        try:
            async with asyncio.timeout(self._settings.patience):
                repeats, wake = await self._inbox.append(
                    batch, self._cursors, duplicate_window, self._settings.patience
                )
        except TimeoutError as error:
            raise InboxUnavailable("Redis did not answer in time") from error
        if wake:
            task = asyncio.create_task(self._wake(batch.partition, wake))
            self._wakes.add(task)
            task.add_done_callback(self._wakes.discard)
        return repeats

    def _turn_to_journal(self, error: InboxUnavailable) -> None:
        self.takes_directly = False
        self._behind.set()
        self._say(error)

    def _say(self, error: Exception) -> None:
        """Log why, once for each reason."""
        trouble = self._reason(error)
        if trouble == self.trouble:
            return
        self.trouble = trouble
        expected = isinstance(error, (InboxUnavailable, RedisError, OSError))
        log.error(
            "Redis does not take events: %s; events go to the journal until it does",
            trouble,
            exc_info=None if expected else error,
        )

    def _reason(self, error: Exception) -> str:
        wrapped = isinstance(error, InboxUnavailable) and error.__cause__
        cause = wrapped or error
        if isinstance(cause, AuthenticationError):
            return "the server refuses the user name or password of `redis_url`"
        if isinstance(cause, TimeoutError):
            return f"the server did not answer within {self._settings.patience:g} s"
        return str(cause) or type(cause).__name__

    async def _wake(self, partition: int, handlers: list[str]) -> None:
        try:
            for handler in handlers:
                await asyncio.to_thread(queues.wake, self._rq, handler, partition)
        except Exception:
            # The events are safe; the scheduler's sweep finds within seconds what is not awake.
            log.exception("calling the workers failed; the sweep will")


def _only(batch: Batch, indices: Sequence[int]) -> Batch:
    if len(indices) == len(batch.marks):
        return batch
    return msgspec.structs.replace(
        batch,
        marks=[batch.marks[index] for index in indices],
        events=[batch.events[index] for index in indices],
    )


class _Recent:
    """The marks of the last seconds, to tell repeats by when Redis cannot."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._marks: OrderedDict[str, float] = OrderedDict()  # mark -> until when

    def fresh(self, marks: Sequence[str]) -> list[int]:
        """The indices of the marks that are no repeat: of one within the window, or before it."""
        if not self._window:
            return list(range(len(marks)))
        self._forget()
        first: dict[str, int] = {}
        for index, mark in enumerate(marks):
            if mark not in self._marks:
                first.setdefault(mark, index)
        return list(first.values())

    def add(self, marks: Iterable[str]) -> None:
        """These came now."""
        until = time.monotonic() + self._window
        for mark in marks:
            self._marks.pop(mark, None)  # the newest are last
            self._marks[mark] = until
        self._forget()

    def _forget(self) -> None:
        now = time.monotonic()
        while self._marks:
            mark, until = next(iter(self._marks.items()))
            if until > now and len(self._marks) <= _MOST_MARKS:
                return
            del self._marks[mark]
