"""The event store: the inbox, or the journal while Redis does not accept events.

After one batch has gone to the journal, all later ones do until the journal is drained. That keeps
the order, and only the first batch waits for a Redis that is down.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress

import msgspec
from redis.exceptions import AuthenticationError, RedisError

from offhook.errors import InboxUnavailable
from offhook.event import new_event_id
from offhook.inbox import Batch, Inbox
from offhook.settings import Settings
from offhook.tasks import asked_to_end
from receiver.journal import left_behind, open_journals

log = logging.getLogger("offhook.receiver")

_START_WAIT = 3.0  # seconds that a Redis which answers has at startup
_RETRY_EVERY = 0.5  # seconds between attempts to reach Redis
_TAKE_OVER_EVERY = 10.0  # seconds between searches for journals of dead receivers
_MOST_MARKS = 500_000  # about 100 MB; beyond that, repeats go undetected while Redis is down


class EventStore:
    """Stores batches of events, whatever state Redis is in.

    Args:
        settings: the configuration.
        inbox: where events belong.
        take_over_every: seconds between searches for journals of dead receivers.

    Raises:
        ConfigError: the journal's folder is not writable.
    """

    def __init__(
        self,
        settings: Settings,
        inbox: Inbox,
        take_over_every: float = _TAKE_OVER_EVERY,
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._take_over_every = take_over_every
        self._writer = new_event_id()
        self._numbers = [0] * inbox.numbering.configured
        self._announced = False  # `partitions`, which holds for all receivers
        self._appended = _Recent(settings.duplicate_window)
        self._journaled = _Recent(settings.duplicate_window)
        self._folder = settings.journal_folder
        *self._left_behind, self._journal = open_journals(
            self._folder, settings.journal_size, settings.patience
        )
        # Guards the journal and `takes_directly`.
        self._journal_lock = asyncio.Lock()
        self.takes_directly = False  # Redis accepts events and the journal is empty
        self._behind = asyncio.Event()
        self._behind.set()
        self.redis_fault = ""  # why Redis does not accept events
        self.journaled = 0  # events that went to the journal

    @property
    def journal_fault(self) -> str | None:
        """Why the journal does not accept events, or None."""
        return self._journal.fault

    @property
    def journal_size(self) -> int:
        """Bytes of events that are not in Redis yet."""
        return sum(journal.size for journal in (*self._left_behind, self._journal))

    async def take(self, settings: Settings) -> None:
        """Use other settings. New handlers have a position before the events they should get."""
        try:
            async with asyncio.timeout(settings.patience):
                for tenant in ("", *settings.tenants):
                    every = settings.handlers_for(tenant)
                    new = every.keys() - self._settings.handlers_for(tenant).keys()
                    if new:
                        starts = {name: every[name].start for name in new}
                        await self._inbox.register(starts, tenant)
        except (RedisError, TimeoutError) as error:  # the workers do it, too
            log.warning("the handlers get their positions later: %s", self._reason(error))
        self._settings = settings
        self._appended.window = self._journaled.window = settings.duplicate_window

    async def put(
        self,
        partition: int,
        events: Sequence[tuple[str, bytes]],
        tenants: Sequence[str] = (),
    ) -> set[int]:
        """Return when the events are safe. The caller awaits one put per partition at a time.

        Args:
            events: pairs of a fingerprint, equal for repeats, and the stored event.
            tenants: whose events they are, one for each; empty: all are the operator's.

        Returns:
            The indices of the repeats.

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
            tenants=[*tenants],
        )
        if not self.takes_directly:
            async with self._journal_lock:
                if not self.takes_directly:  # still
                    return await self._put_in_journal(batch)
        try:
            return await self._put_in_inbox(batch)
        except InboxUnavailable as error:
            async with self._journal_lock:
                self._switch_to_journal(error)
                # If only the response was lost, the batch's number keeps it from being added twice.
                return await self._put_in_journal(batch)

    async def run(self) -> None:
        """Move events from the journals to the inbox until cancelled."""
        while not asked_to_end():
            try:
                if not self._left_behind:
                    async with asyncio.timeout(self._take_over_every):
                        await self._behind.wait()
            except TimeoutError:
                await self._take_over()
                continue
            try:
                await self._catch_up()
            except Exception as error:  # noqa: BLE001 - logged; this loop must go on
                self._report(error)
                if self.journal_fault:
                    await self._journal.probe()
                await asyncio.sleep(_RETRY_EVERY)

    async def close(self) -> None:
        """Close the journals. Their events stay on disk."""
        for journal in (*self._left_behind, self._journal):
            journal.close()

    async def _put_in_inbox(self, batch: Batch) -> set[int]:
        fresh = self._journaled.fresh(batch.marks)  # Redis does not know the others
        repeats: set[int] = set()
        if fresh:
            repeats = await self._send(batch.only(fresh), self._settings.duplicate_window)
        taken = [index for position, index in enumerate(fresh) if position not in repeats]
        self._appended.add(batch.marks[index] for index in taken)
        return set(range(len(batch.marks))) - set(taken)

    async def _put_in_journal(self, batch: Batch) -> set[int]:
        known = set(self._appended.fresh(batch.marks))
        fresh = [index for index in self._journaled.fresh(batch.marks) if index in known]
        if fresh:
            await self._journal.append(batch.only(fresh))
            self.journaled += len(fresh)
            # Only now: a callback that was not stored is no repeat when it is sent again.
            self._journaled.add(batch.marks[index] for index in fresh)
        return set(range(len(batch.marks))) - set(fresh)

    async def _take_over(self) -> None:
        """Adopt the journals of receivers that died and will not restart."""
        limit, patience = self._settings.journal_size, self._settings.patience
        try:
            found = await asyncio.to_thread(left_behind, self._folder, limit, patience)
        except OSError as error:
            log.error("cannot look for journals of dead receivers: %s", error.strerror)
            return
        for journal in found:
            log.warning("taking over %s bytes that a dead receiver left", journal.size)
        self._left_behind += found

    async def _catch_up(self) -> None:
        async with asyncio.timeout(self._settings.patience):
            await self._inbox.redis.ping()
        if self._announced:
            await self._inbox.numbering.keep_up()
        else:
            await self._inbox.numbering.announce()
            self._announced = True
        # A handler must have a position before the first event it should get.
        await self._inbox.register(self._settings.starts)
        waiting = self.journal_size
        while self._left_behind:
            oldest = self._left_behind[0]
            if await oldest.drain(self._drain):
                self._left_behind.remove(oldest)
                oldest.close()
        while not self.takes_directly:
            async with self._journal_lock:  # alternates with `put`, which so cannot outrun this
                self.takes_directly = await self._journal.drain(self._drain)
                if self.takes_directly:
                    self._behind.clear()
        if self.redis_fault or waiting:
            log.warning("Redis takes events again; moved %s bytes from the journal", waiting)
        self.redis_fault = ""

    async def _drain(self, batch: Batch) -> None:
        # Repeats were dropped when the batch was journaled; its marks would now expire too late.
        await self._send(batch, duplicate_window=0)

    async def _send(self, batch: Batch, duplicate_window: float) -> set[int]:
        try:
            async with asyncio.timeout(self._settings.patience):
                return await self._inbox.append(batch, duplicate_window, self._settings.patience)
        except TimeoutError as error:
            raise InboxUnavailable("Redis did not respond in time") from error

    def _switch_to_journal(self, error: InboxUnavailable) -> None:
        self.takes_directly = False
        self._behind.set()
        self._report(error)

    def _report(self, error: Exception) -> None:
        """Log why Redis does not accept events, unless that was the last reason logged."""
        reason = self._reason(error)
        if reason == self.redis_fault:
            return
        self.redis_fault = reason
        expected = isinstance(error, (InboxUnavailable, RedisError, OSError))
        log.error(
            "Redis does not take events: %s; events go to the journal until it does",
            reason,
            exc_info=None if expected else error,
        )

    def _reason(self, error: Exception) -> str:
        cause = (isinstance(error, InboxUnavailable) and error.__cause__) or error
        if isinstance(cause, AuthenticationError):
            return "the server rejects the user name or password in `redis_url`"
        if isinstance(cause, TimeoutError):
            return f"the server did not respond within {self._settings.patience:g} s"
        return str(cause) or type(cause).__name__


async def started(store: EventStore) -> "asyncio.Task[None]":
    """Run a store in a task, which it returns when callbacks may come.

    They may once Redis takes events, or if it is away. A receiver that began with its journal while
    another one uses none would change the order of calls whose events come to both.
    """
    running = asyncio.create_task(store.run())
    with suppress(TimeoutError):
        async with asyncio.timeout(_START_WAIT):
            while not (store.takes_directly or store.redis_fault or store.journal_size):
                await asyncio.sleep(0.01)
    return running


class _Recent:
    """The marks of the last seconds, to detect repeats while Redis cannot."""

    def __init__(self, window: float) -> None:
        self.window = window
        self._marks: OrderedDict[str, float] = OrderedDict()  # mark -> when it expires

    def fresh(self, marks: Sequence[str]) -> list[int]:
        """Return the indices of the marks that repeat neither a recent one nor one before them."""
        if not self.window:
            return list(range(len(marks)))
        self._forget()
        first: dict[str, int] = {}
        for index, mark in enumerate(marks):
            if mark not in self._marks:
                first.setdefault(mark, index)
        return list(first.values())

    def add(self, marks: Iterable[str]) -> None:
        """Remember marks from now on."""
        until = time.monotonic() + self.window
        for mark in marks:
            self._marks.pop(mark, None)  # so that the newest is last
            self._marks[mark] = until
        self._forget()

    def _forget(self) -> None:
        now = time.monotonic()
        while self._marks:
            mark, until = next(iter(self._marks.items()))
            if until > now and len(self._marks) <= _MOST_MARKS:
                return
            del self._marks[mark]
