"""`fold_calls`: an RQ job that folds events into calls and adds the events of whole calls.

inbox → **fold_calls** (one cursor for all handlers, each call in order) → inbox
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush

import uvloop
from msgspec.structs import replace
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError
from redis.exceptions import TimeoutError as RedisTimeoutError

from offhook import queues
from offhook.call import Kind
from offhook.calls import (
    CallState,
    Closing,
    fold,
    goes_on,
    name_of_latest,
    settles_after,
    tell,
    used_again,
    with_extensions,
)
from offhook.connection import opened
from offhook.errors import CursorMoved
from offhook.extensions import Extensions, ExtensionsCopy
from offhook.inbox import BLOCK_MS, CALL_LOG, Cursor, Entry
from offhook.inbox.call_store import FOLDED, CallChange, Calls, Kept
from offhook.logs import Outage
from offhook.settings import Settings, load_settings
from workers import process
from workers.delivery.attempt import event_keys
from workers.delivery.lease import LeaseKeeper, taken

log = logging.getLogger("offhook.calls")

QUIET = 5.0  # seconds without an event or an open settle window before the job ends
MAX_AGE = 3600.0  # seconds before a fresh process takes over
READ_AT_ONCE = 500
SWEEP_EVERY = 20.0  # seconds between sweeps for calls without an end and calls past `keep_days`


def fold_calls(handler: str, partition: int) -> None:
    """The RQ job.

    Args:
        handler: always `calls`, the name of the cursor.
        partition: the number of the partition.
    """
    process.die_with_parent()
    os.nice(5)  # deliveries have priority on a shared core
    uvloop.run(keep_calls(load_settings(), partition))


async def keep_calls(settings: Settings, partition: int) -> None:
    """Take the lease of the cursor `calls` on a partition and serve it until it is idle."""
    # `once` never retries: a write that was repeated blindly could add its events twice.
    async with opened(settings, tries=10) as (inbox, rq), opened(settings, tries=0) as (once, _):
        cursor = Cursor(inbox, CALL_LOG, partition)
        reader = Cursor(once, CALL_LOG, partition, cursor.token)
        if not await taken(cursor):
            return
        extensions = ExtensionsCopy(Extensions(inbox.redis))
        if await CallKeeper(settings, extensions, cursor, reader, Calls(once), rq).run():
            queues.wake(rq, CALL_LOG, partition)


class CallKeeper:
    """One run of the job: folds events into calls, announces changes, and closes calls in time."""

    def __init__(
        self,
        settings: Settings,
        extensions: ExtensionsCopy,
        cursor: Cursor,
        reader: Cursor,
        calls: Calls,
        rq: Redis,
    ) -> None:
        self._settings = settings
        self._extensions = extensions
        self._cursor = cursor
        self._reader = reader
        self._calls = calls
        self._rq = rq
        # Monotonic times.
        self._windows: dict[str, float] = {}  # call -> when its settle window ends
        self._ends: list[tuple[float, str]] = []  # the same as a heap, with outdated entries
        self._refresh_at = self._sweep_at = 0.0
        self._stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._lease = LeaseKeeper(
            settings.redis_url, cursor, lambda: loop.call_soon_threadsafe(self._stop.set)
        )

    async def run(self) -> bool:
        """Serve the cursor. Return whether another run should take over at once."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        try:
            hand_over = await self._serve()
            if self._stop.is_set() or hand_over:
                await self._cursor.rest(even_if_behind=True)
            return hand_over
        finally:
            self._lease.stop()

    async def _serve(self) -> bool:
        began = quiet_since = time.monotonic()
        recovered = False
        outage = Outage(log, "Redis")
        while not self._stop.is_set():
            try:
                if not recovered:
                    await self._recover()
                    recovered = True
                entries = await self._read()
                await self._take_in(entries)
                await self._end_windows()
                await self._do_housekeeping()
            except CursorMoved:
                recovered = False
                continue
            except (RedisConnectionError, RedisTimeoutError, OutOfMemoryError) as error:
                # If the last step was made, `_recover` finds that out.
                self._lease.check()
                outage.goes_on(error)
                await asyncio.sleep(0.2)
                recovered = False
                continue
            outage.is_over()
            now = time.monotonic()
            if entries or self._windows:
                quiet_since = now
            elif now - quiet_since > QUIET and await self._cursor.rest():
                return False
            if now - began > MAX_AGE:
                return True
        return False

    async def _read(self) -> list[Entry]:
        self._lease.check()
        wait = BLOCK_MS / 4000
        if self._ends:
            wait = min(wait, self._ends[0][0] - time.monotonic())
        return await self._reader.read(READ_AT_ONCE, max(1, int(wait * 1000)))

    async def _recover(self) -> None:
        """Read the open settle windows, and take in the pending entries."""
        await self._extensions.refresh()
        now, wall = time.monotonic(), time.time()
        longest = max(self._settings.settle, self._settings.settle_unanswered)
        self._windows.clear()
        self._ends.clear()
        for name, ends in (await self._calls.settling(self._cursor.partition)).items():
            self._open(name, now + min(max(0.0, ends / 1000 - wall), longest))
        await self._reader.locate()
        after = b"0-0"
        while page := await self._reader.read_pending(after, READ_AT_ONCE):
            await self._take_in(page)
            after = page[-1].position

    async def _take_in(self, entries: Sequence[Entry]) -> None:
        """Fold events into their calls, and announce what follows at once."""
        if not entries:
            return
        folded = [entry for entry in entries if entry.event.type in FOLDED]
        names = list(dict.fromkeys(entry.event.call for entry in folded))
        kept = await self._calls.load_with_latest(self._cursor.partition, names)
        changed: dict[str, Closing | None] = {}  # the calls to save, and what ends them
        for entry in folded:
            self._fold(entry, kept, changed)
        now, wall = datetime.now(UTC), int(time.time() * 1000)
        changes = [self._change(kept[name], now, closing) for name, closing in changed.items()]
        windows: dict[str, float | None] = {}
        for change, closing in zip(changes, changed.values(), strict=True):
            wait = None if closing else self._settles_after(change.kept.state)
            windows[change.kept.name] = wait
            change.settles = None if wait is None else wall + int(wait * 1000)
            # Also reopens a call that was closed too early.
            change.live = None if closing else wall
        await self._save(changes, [entry.position for entry in entries])
        end = time.monotonic()
        for name, wait in windows.items():
            if wait is None:
                self._windows.pop(name, None)
            else:
                self._open(name, end + wait)

    def _fold(
        self, entry: Entry, kept: dict[str, Kept], changed: dict[str, Closing | None]
    ) -> None:
        position = entry.position.decode()
        event = with_extensions(entry.event, self._extensions)
        first = kept.get(event.call)
        name = name_of_latest(event.call, first.state) if first else event.call
        there = kept.get(name)
        settings = self._extensions.get(event.pbx, event.extension)
        try:
            if first and there and used_again(there.state, event, self._settings.settle):
                first.state = replace(first.state, again=first.state.again + 1)
                changed |= {first.name: "hangup", name: "hangup"}
                name, there = name_of_latest(event.call, first.state), None
                event = replace(event, call_id=name.partition("/")[2])
            state = fold(
                there.state if there else None,
                event,
                settings.kind,
                all_events=settings.has_all_events,
            )
        except Exception:
            # A bug with one event must not hold up all calls.
            log.exception(
                "cannot fold an event into its call", extra=event_keys(event, CALL_LOG, 1)
            )
            return
        if there and state.left_out > there.state.left_out:
            keys = event_keys(event, CALL_LOG, 1)
            log.warning("event left out of its call, which has too many events", extra=keys)
        kept[name] = Kept(name, state, there.first if there else position, position)
        changed[name] = None

    def _settles_after(self, state: CallState) -> float | None:
        def kind_of(extension: str) -> Kind | None:
            return self._extensions.get(state.pbx, extension).kind

        settings = self._settings
        return settles_after(state, settings.settle, settings.settle_unanswered, kind_of)

    async def _end_windows(self) -> None:
        """Close the calls whose settle window has ended."""
        names = []
        now = time.monotonic()
        while self._ends and self._ends[0][0] <= now:
            ends, name = heappop(self._ends)
            if self._windows.get(name) == ends:  # otherwise the entry is outdated
                del self._windows[name]
                names.append(name)
        await self._close(names, "hangup")

    async def _close(self, names: Sequence[str], closing: Closing) -> None:
        """Close these calls, or announce corrections of those already closed."""
        partition = self._cursor.partition
        for at in range(0, len(names), READ_AT_ONCE):
            some = names[at : at + READ_AT_ONCE]
            kept = await self._calls.load(partition, some)
            await self._calls.drop(partition, [name for name in some if name not in kept])
            now = datetime.now(UTC)
            changes = []
            for each in kept.values():
                if closing == "silence" and self._goes_on(each.state, now):
                    changes.append(CallChange(each, [], live=int(now.timestamp() * 1000)))
                else:
                    changes.append(self._change(each, now, closing))
            await self._save(changes, [])

    def _goes_on(self, state: CallState, now: datetime) -> bool:
        pbx = self._settings.pbx.get(state.pbx)
        return goes_on(state, now, records=pbx is not None and pbx.host is not None)

    def _change(self, kept: Kept, now: datetime, closing: Closing | None) -> CallChange:
        kept.state, events = tell(kept.state, self._settings.region, now, closing)
        return CallChange(kept, events)

    async def _save(self, changes: Sequence[CallChange], positions: Sequence[bytes]) -> None:
        self._lease.check()
        cursors = list(self._settings.cursors)
        wake = await self._calls.save(
            self._cursor, changes, positions, cursors, self._settings.keep_days
        )
        for name in wake:
            await asyncio.to_thread(queues.wake, self._rq, name, self._cursor.partition)

    def _open(self, name: str, ends: float) -> None:
        self._windows[name] = ends
        heappush(self._ends, (ends, name))

    async def _do_housekeeping(self) -> None:
        """Refresh the extensions, close silent calls, and delete old ones, each when due."""
        now = time.monotonic()
        if now < self._refresh_at:
            return
        self._refresh_at = now + 1
        await self._extensions.refresh()
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_EVERY
        partition, wall = self._cursor.partition, datetime.now(UTC)
        silent_since = wall - timedelta(seconds=self._settings.call_timeout)
        while names := await self._calls.silent(partition, silent_since):
            await self._close(names, "silence")
        await self._calls.forget(partition, wall - timedelta(days=self._settings.keep_days))
