"""`Folder`: folds a partition's events into calls, and appends the events of whole calls."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace
from redis.exceptions import RedisError

from offhook.call import CALL_LOG
from offhook.calls import (
    CallState,
    Closing,
    fold,
    name_of_latest,
    used_again,
    with_extensions,
)
from offhook.errors import FoldMoved
from offhook.event import CallEvent, tenant_of
from offhook.inbox.call_store import FOLDED, CallChange, CallSave, Kept
from offhook.logs import Outage
from offhook.tasks import asked_to_end, woken
from workers.delivery.attempt import event_keys
from workers.serving.call_rules import CallRules
from workers.serving.kept_calls import KeptCalls
from workers.serving.settle_windows import SettleWindows
from workers.serving.streams import Events, TenantStream, after
from workers.serving.turns import STEP

if TYPE_CHECKING:
    from workers.serving.partition_server import Server
    from workers.serving.served_partition import ServedPartition

log = logging.getLogger("offhook.calls")

AT_ONCE = 500  # events or calls
OF_TENANTS_AT_ONCE = 64  # events, so that a tenant's flood does not keep others waiting
MOST_WAITING = 5_000  # events in memory; beyond it they are read again later
SWEEP_EVERY = 20.0  # seconds between sweeps for calls without an end and calls past `keep_days`


class Progress:
    """How far a stream is folded.

    Attributes:
        folded: how far, in memory.
        saved: how far, in Redis; events that are not folded into calls need not be noted there.
        waiting: the next events.
        complete: these are all that were read.
    """

    __slots__ = ("complete", "folded", "saved", "stream", "waiting")

    def __init__(self, stream: TenantStream, folded: bytes) -> None:
        self.stream = stream
        self.restart(folded)

    def restart(self, folded: bytes) -> None:
        self.folded = self.saved = folded
        self.waiting: deque[tuple[bytes, CallEvent | None]] = deque()
        self.complete = not after(self.stream.read, folded)


class Folder:
    """Folds the events of one partition while this server holds its lease."""

    def __init__(self, server: "Server", served: "ServedPartition") -> None:
        self._server = server
        self._settings = server.settings
        self._served = served
        self._partition = served.partition
        self._calls = server.calls
        self._progress: dict[str, Progress] = {}  # by tenant
        self._unfolded: dict[str, None] = {}  # tenants
        self._kept = KeptCalls(server, served.number)
        self._rules = CallRules(server)
        self._windows = SettleWindows()
        self._sweep_at = 0.0  # monotonic
        self._at_once = self._of_each = AT_ONCE
        if server.settings.tenants:
            self._at_once, self._of_each = min(AT_ONCE, OF_TENANTS_AT_ONCE), min(AT_ONCE, STEP)
        self._lost = False  # it is not known which of the last steps were made
        self._wake = asyncio.Event()
        self._outage = Outage(log, "Redis")

    async def open(self) -> None:
        """Read the open settle windows."""
        now, wall = time.monotonic(), time.time()
        longest = max(self._settings.settle, self._settings.settle_unanswered)
        self._kept.clear()
        self._windows.clear()
        for name, ends in (await self._calls.settling(self._partition.number)).items():
            self._windows.open(name, now + min(max(0.0, ends / 1000 - wall), longest))

    def adopt(self, stream: TenantStream, folded: bytes) -> None:
        """Continue with a stream where the last server stopped."""
        self._progress[stream.tenant] = Progress(stream, folded)
        self._look_at(stream.tenant)

    def take_in(self, stream: TenantStream, events: Events) -> None:
        """Fold these events soon: those that were read now."""
        progress = self._progress[stream.tenant]
        if progress.complete:
            progress.complete = len(progress.waiting) < MOST_WAITING
            if progress.complete:
                progress.waiting.extend(events)
        self._look_at(stream.tenant)

    def caught_up(self, stream: TenantStream) -> bool:
        """Return whether all that was read is folded."""
        return not after(stream.read, self._progress[stream.tenant].folded)

    async def run(self) -> None:
        """Fold until cancelled.

        Raises:
            LeaseLost: another server serves the partition.
        """
        while not asked_to_end():
            try:
                if self._lost:
                    await self._start_again()
                while self._unfolded and not asked_to_end():
                    if not await self._fold_some():
                        break  # until it is its turn
                await self._close(self._windows.ended(time.monotonic()), "hangup")
                await self._sweep()
            except (RedisError, FoldMoved) as error:
                self._outage.goes_on(error)
                self._lost = True
                await asyncio.sleep(0.2)
                continue
            self._outage.is_over()
            if asked_to_end():
                return  # a cancellation can get lost: see `offhook.tasks.end`
            wait = SWEEP_EVERY
            following = self._windows.following
            if following is not None:
                wait = min(wait, max(0.0, following - time.monotonic()))
            if await woken(self._wake, wait):
                await asyncio.sleep(0)  # deliveries that can begin now go first

    def _look_at(self, tenant: str) -> None:
        self._unfolded[tenant] = None
        self._wake.set()

    async def _start_again(self) -> None:
        """After a fault, find out which of the last steps were made."""
        await self.open()
        for state in await self._partition.load(list(self._progress)):
            self._progress[state.tenant].restart(state.folded)
            self._look_at(state.tenant)
        self._lost = False

    # Folding

    async def _fold_some(self) -> bool:
        """Fold some events of several tenants: their calls are loaded, and saved, together.

        Returns:
            False if there is nothing to fold but backlogs with which others have the turns.
        """
        with self._server.folding.taking(self._wake.set) as is_mine:
            return await self._fold_step(is_mine)

    async def _fold_step(self, is_mine: Callable[[str], bool]) -> bool:
        steps: list[tuple[Progress, list[tuple[bytes, CallEvent | None]]]] = []
        room = self._at_once
        for tenant in list(self._unfolded):
            progress = self._progress[tenant]
            if len(progress.waiting) > self._of_each and not is_mine(tenant):
                continue
            if events := await self._next(progress):
                self._unfolded[tenant] = self._unfolded.pop(tenant)  # then the others' turns
                steps.append((progress, events))
                room -= len(events)
            else:
                del self._unfolded[tenant]
                self._served.writer.mark(progress.stream)
            if room <= 0:
                break
        if not steps:
            return not self._unfolded
        names = {event.call: None for _, events in steps for event in _folded(events).values()}
        kept = await self._kept.load_with_latest(list(names))
        before = {name: each.state for name, each in kept.items()}
        waits: dict[str, float | None] = {}
        saves = [
            self._fold(progress, folded, events[-1][0], kept, before, waits)
            for progress, events in steps
            if (folded := _folded(events))
        ]
        await self._save(saves)
        end = time.monotonic()
        for name, wait in waits.items():
            if wait is None:
                self._windows.close(name)
            else:
                self._windows.open(name, end + wait)
        for progress, events in steps:
            progress.folded = events[-1][0]
            if _folded(events):
                progress.saved = progress.folded
        return True

    async def _next(self, progress: Progress) -> list[tuple[bytes, CallEvent | None]]:
        waiting, stream = progress.waiting, progress.stream
        while waiting or not progress.complete:
            if not waiting:
                until = stream.read
                items = await self._partition.range(stream.tenant, progress.folded, until, AT_ONCE)
                waiting.extend(await self._served.reader.decoded(items))
                progress.complete = len(items) < AT_ONCE and until == stream.read
                if not items and after(until, progress.folded):
                    progress.folded = until
            events = [waiting.popleft() for _ in range(min(self._of_each, len(waiting)))]
            # A process that ended after it saved and before it noted what it read was further.
            while events and not after(events[0][0], progress.folded):
                del events[0]
            if events:
                return events
        return []

    def _fold(
        self,
        progress: Progress,
        events: Mapping[bytes, CallEvent],
        last: bytes,
        kept: dict[str, Kept],
        before: Mapping[str, CallState],
        waits: dict[str, float | None],
    ) -> CallSave:
        """Fold a tenant's events into their calls, and announce what follows at once.

        Args:
            kept: the calls; those of these events are changed.
            before: as they are in the store.
            waits: gets the settle windows to open, in seconds, and to close (None), by call.
        """
        changed: dict[str, Closing | None] = {}  # the calls to save, and what ends them
        for position, event in events.items():
            self._fold_one(position.decode(), event, kept, changed)
        now, wall = datetime.now(UTC), int(time.time() * 1000)
        changes: list[CallChange] = []
        for name, closing in changed.items():
            call, due = self._rules.tell(kept[name], now, closing)
            wait = waits[name] = None if closing else self._rules.settles_after(call.state)
            settles = None if wait is None else wall + int(wait * 1000)
            # Also reopens a call that was closed too early.
            live = None if closing else wall
            changes.append(CallChange(call, due, settles, live, before.get(name)))
        tenant = progress.stream.tenant
        return CallSave(
            tenant, changes, (progress.saved, last), self._settings.of(tenant).keep_days
        )

    def _fold_one(
        self,
        position: str,
        event: CallEvent,
        kept: dict[str, Kept],
        changed: dict[str, Closing | None],
    ) -> None:
        extensions = self._server.extensions
        event = with_extensions(event, extensions)
        name = event.call
        first = kept.get(name)
        if first:
            name = name_of_latest(name, first.state)
        there = kept.get(name)
        settings = extensions.get(event.pbx, event.extension)
        try:
            if first and there and used_again(there.state, event, self._settings.settle):
                state = replace(first.state, again=first.state.again + 1)
                kept[first.name] = replace(first, state=state)
                changed |= {first.name: "hangup", name: "hangup"}
                name, there = name_of_latest(first.name, state), None
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
        began = there.first if there else position
        kept[name] = Kept(name, state, began, position, self._served.number)
        changed[name] = None

    async def _save(self, saves: Sequence[CallSave]) -> None:
        if saves:
            self._server.share.check_lease(self._partition.number)
            await self._calls.save(self._partition, saves)
            self._kept.keep(change.kept for each in saves for change in each.changes)

    # Closing

    async def _close(self, names: Sequence[str], closing: Closing) -> None:
        """Close these calls, or announce corrections of those already closed."""
        number = self._partition.number
        for at in range(0, len(names), AT_ONCE):
            some = names[at : at + AT_ONCE]
            kept = await self._kept.load(some)
            await self._calls.drop(number, [name for name in some if name not in kept])
            now = datetime.now(UTC)
            changes: dict[str, list[CallChange]] = {}  # by tenant
            for each in kept.values():
                if closing == "silence" and self._rules.goes_on(each.state, now):
                    live = int(now.timestamp() * 1000)
                    change = CallChange(each, [], live=live, before=each.state)
                else:
                    change = CallChange(*self._rules.tell(each, now, closing), before=each.state)
                changes.setdefault(tenant_of(each.name), []).append(change)
            for tenant, its in changes.items():
                progress = self._progress.get(tenant)
                # Nothing is saved of calls in memory whose events a failover has made unfolded.
                positions = (progress.saved, progress.saved) if progress else None
                keep_days = self._settings.of(tenant).keep_days
                await self._save([CallSave(tenant, its, positions, keep_days)])

    async def _sweep(self) -> None:
        """Close silent calls, and delete old ones, when it is time."""
        now = time.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_EVERY
        number, wall = self._partition.number, datetime.now(UTC)
        silent_since = wall - timedelta(seconds=self._settings.call_timeout)
        while names := await self._calls.silent(number, silent_since):
            await self._close(names, "silence")
        before = {
            tenant: wall - timedelta(days=self._settings.of(tenant).keep_days)
            for tenant in ("", *self._progress)
        }
        await self._calls.forget(number, before)


def _folded(events: Iterable[tuple[bytes, CallEvent | None]]) -> dict[bytes, CallEvent]:
    """The events that are folded into calls, by position."""
    return {at: event for at, event in events if event is not None and event.type in FOLDED}
