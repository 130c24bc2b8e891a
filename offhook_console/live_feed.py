"""`LiveFeed`: what changes, pushed to the browsers that listen.

One reader of the inbox for all of them, however many there are. A fragment is rendered once for
all people with the same view.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from datetime import time as clock_time

from redis import Redis
from redis.exceptions import RedisError

from offhook.call import Call
from offhook.calls import summarize
from offhook.event import CALLBACKS, EventType
from offhook.extensions import ExtensionSettings, Name
from offhook.inbox import Inbox, feed, quarantine
from offhook.inbox.call_store import FOLDED, Calls
from offhook.operations.bulk import BulkOperations
from offhook.operations.status import HandlerStatus, handler_statuses
from offhook.settings import Settings
from offhook.tasks import end, woken
from offhook_console.board import JUST_ENDED, Board
from offhook_console.call_query import latest_call, live_calls
from offhook_console.call_views import call_key, view_call
from offhook_console.labels import ExtensionLabels
from offhook_console.people import View
from offhook_console.rendering import Pages

log = logging.getLogger("offhook.console")

_DAWN = clock_time()
_AHEAD = 1000  # messages for a browser that does not read
# Seconds after an event at which its call is looked at: a server folds it within milliseconds,
# unless it is busy.
_LOOKS = (0.03, 0.25, 1.0, 4.0)
_HOUR = timedelta(hours=1)
_COUNTED = 5000  # events of a partition, when the events per minute are counted at the start
_FIGURES = 2.0  # seconds between two pushes of the figures
_DELIVERIES = 2.0  # seconds between two looks at the handlers
_UNWATCHED = 10.0  # the same while no browser listens
_CALL_EVENTS = FOLDED | {
    EventType.CALL_STARTED,
    EventType.CALL_ANSWERED,
    EventType.CALL_ENDED,
    EventType.CALL_CORRECTED,
}


@dataclass(frozen=True)
class FeedMessage:
    """A message to a browser: HTML fragments, or the names of what has changed."""

    event: str
    data: str


@dataclass(eq=False)
class Listener:
    """A browser that listens."""

    view: View
    messages: asyncio.Queue[FeedMessage | None] = field(
        default_factory=lambda: asyncio.Queue(maxsize=_AHEAD)
    )


@dataclass
class Deliveries:
    """The handlers, the dead letters and the quarantine, as last seen."""

    handlers: list[HandlerStatus] = field(default_factory=list)
    quarantined: int = 0
    operations: tuple[object, ...] = ()


class LiveFeed:
    """Reads a tenant's events in the inbox and tells browsers.

    Args:
        settings: the operator's.
        pages: renders the fragments.
        tenant: whose events; empty: the operator's, and everything about deliveries.
    """

    def __init__(
        self, settings: Settings, inbox: Inbox, rq: Redis, pages: Pages, tenant: str = ""
    ) -> None:
        self._settings = settings
        self._tenant = tenant
        self._region = settings.of(tenant).region
        self._inbox = inbox
        self._rq = rq
        self._pages = pages
        self._calls = Calls(inbox)
        self._labels = ExtensionLabels(inbox.redis)
        self._operations = BulkOperations(inbox, rq)
        self._due: dict[str, list[float]] = {}
        self._changed = asyncio.Event()
        self._figures_due = False
        self.listeners: set[Listener] = set()
        self.board = Board(settings.console.answer_within)
        self.deliveries = Deliveries()
        self.down_since: datetime | None = None

    @property
    def labels(self) -> Mapping[Name, ExtensionSettings]:
        """The settings of all extensions."""
        return self._labels.all

    @property
    def counts(self) -> dict[str, int]:
        """The numbers beside the entries of the navigation."""
        handlers = self.deliveries.handlers
        return {
            "handlers": sum(1 for each in handlers if each.circuit is not None),
            "dead-letters": sum(each.dead for each in handlers),
            "quarantine": self.deliveries.quarantined,
        }

    @contextmanager
    def listening(self, view: View) -> Iterator[Listener]:
        """Listen while in this context."""
        listener = Listener(view)
        self.listeners.add(listener)
        try:
            yield listener
        finally:
            self.listeners.discard(listener)

    async def messages(self, view: View) -> AsyncIterator[FeedMessage]:
        """The messages for people with this view, from now on."""
        with self.listening(view) as listener:
            # What changed before is not known to this browser: it fetches what it shows.
            yield FeedMessage("changed", json.dumps(["all"]))
            while (message := await listener.messages.get()) is not None:
                yield message

    async def run(self) -> None:
        """Read the inbox and tell browsers, until cancelled."""
        while True:
            try:
                await self.load()
                await self._follow()
            except RedisError as error:
                log.warning("Redis does not answer: %s", error)
                self._is_down()
                await asyncio.sleep(1.0)

    def close(self) -> None:
        """End all streams."""
        for listener in list(self.listeners):
            self._last(listener)

    async def load(self) -> None:
        """Read the calls of today and those that go on."""
        await self._labels.refresh()
        await self._inbox.numbering.load()
        midnight, now = _midnight(), datetime.now(UTC)
        self.board = Board(self._settings.console.answer_within)
        async for moment in feed.received_since(self._inbox, now - _HOUR, _COUNTED, self._tenant):
            self.board.count_event(moment)
        async for kept in self._calls.since(midnight, self._tenant):
            self.board.put(summarize(kept.state, self._region), midnight)
        for call in await live_calls(self._inbox, self._region, self._tenant):
            self.board.put(call, midnight)
        self.board.forget(now, midnight)
        if not self._tenant:
            await self.look_at_deliveries()
        if self.down_since is not None:
            self.down_since = None
            self._tell_all(FeedMessage("feed", "up"))
        self._tell_all(FeedMessage("changed", json.dumps(["all"])))

    async def _follow(self) -> None:
        works = [self._read_events(), self._look_at_calls(), self._push_figures()]
        if not self._tenant:
            works += [self._watch_deliveries(), self._run_operations()]
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end(*tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()  # so that asyncio does not report it, too

    async def _read_events(self) -> None:
        async for event in feed.watch_events(self._inbox, self._tenant):
            now = time.monotonic()
            if event.type in CALLBACKS:
                self.board.count_event(event.received)
            if event.type in _CALL_EVENTS:
                self._due[event.call] = [now + after for after in _LOOKS]
                self._changed.set()

    async def _look_at_calls(self) -> None:
        while True:
            if not self._due:
                await self._changed.wait()
                self._changed.clear()
                continue
            first = min(times[0] for times in self._due.values())
            if first > time.monotonic():
                await woken(self._changed, first - time.monotonic())
                continue
            now = time.monotonic()
            due = [name for name, times in self._due.items() if times[0] <= now]
            for name in due:
                self._due[name] = [each for each in self._due[name] if each > now]
                if not self._due[name]:
                    del self._due[name]
            await self._labels.refresh()
            for name in due:
                kept = await latest_call(self._calls, name)
                if kept is not None:
                    self._show(summarize(kept.state, self._region))

    def _show(self, call: Call) -> None:
        """Put a call on the board, and push its card if it has changed."""
        name = f"{call.pbx}/{call.id}"
        if self.board.get(name) == call:
            return
        self.board.put(call, _midnight())
        self._figures_due = True
        if call.closed_by and (call.ended or call.started) < datetime.now(UTC) - JUST_ENDED:
            return  # the server catches up; `_push_figures` takes its card away
        for view, listeners in self._views():
            if view.shows(call):
                html = self._pages.macro("cards.html", "card", view_call(call, view, self.labels))
                html += self._pages.macro("cards.html", "lane_counts", self._lane_counts(view))
                self._tell(listeners, FeedMessage("fragments", html))
        self._tell_all(FeedMessage("changed", json.dumps(["calls", f"call-{call_key(name)}"])))

    def _lane_counts(self, view: View) -> dict[str, int]:
        return {lane: len(self.board.lane(lane, view)) for lane in ("ringing", "talking", "ended")}

    async def _push_figures(self) -> None:
        minute = datetime.now(UTC).minute
        while True:
            await asyncio.sleep(_FIGURES)
            now = datetime.now(UTC)
            gone = self.board.forget(now, _midnight())
            if gone or self._figures_due:
                self._figures_due = False
                for view, listeners in self._views():
                    html = self._pages.macro("cards.html", "figures", self.board.figures(view))
                    html += self._pages.macro("cards.html", "gone_cards", list(map(call_key, gone)))
                    html += self._pages.macro("cards.html", "lane_counts", self._lane_counts(view))
                    self._tell(listeners, FeedMessage("fragments", html))
            if now.minute != minute:
                minute = now.minute
                self._tell_all(FeedMessage("changed", json.dumps(["minute"])))

    async def _watch_deliveries(self) -> None:
        looked = time.monotonic()
        while True:
            await asyncio.sleep(_DELIVERIES)
            watched = any(listener.view.deliveries for listener in self.listeners)
            if watched or time.monotonic() - looked >= _UNWATCHED:
                await self.look_at_deliveries()
                looked = time.monotonic()

    async def look_at_deliveries(self) -> None:
        """Look at handlers, dead letters and the quarantine, and tell what has changed."""
        before, counts = self.deliveries, self.counts
        self.deliveries = Deliveries(
            await handler_statuses(self._inbox, self._rq, self._settings),
            await quarantine.length(self._inbox.redis),
            tuple(await self._operations.all()),
        )
        told = [
            name
            for name, changed in {
                "handlers": before.handlers != self.deliveries.handlers,
                "dead-letters": counts["dead-letters"] != self.counts["dead-letters"],
                "quarantine": before.quarantined != self.deliveries.quarantined,
                "operations": before.operations != self.deliveries.operations,
            }.items()
            if changed
        ]
        if not told:
            return
        html = self._pages.macro("cards.html", "nav_counts", self.counts)
        for view, listeners in self._views():
            if view.deliveries:
                self._tell(listeners, FeedMessage("fragments", html))
                self._tell(listeners, FeedMessage("changed", json.dumps(told)))

    async def _run_operations(self) -> None:
        changed = asyncio.Event()

        async def show() -> None:
            while True:
                await changed.wait()
                changed.clear()
                await self.look_at_deliveries()
                await asyncio.sleep(0.5)

        showing = asyncio.create_task(show())
        try:
            while not showing.done():
                await self._operations.run_due(changed.set)
                await asyncio.sleep(0.5)
            showing.result()
        finally:
            await end(showing)

    def _is_down(self) -> None:
        if self.down_since is None:
            self.down_since = datetime.now(UTC)
            self._tell_all(FeedMessage("feed", "down"))

    def _views(self) -> Iterable[tuple[View, list[Listener]]]:
        views: dict[View, list[Listener]] = {}
        for listener in self.listeners:
            views.setdefault(listener.view, []).append(listener)
        return views.items()

    def _tell_all(self, message: FeedMessage) -> None:
        self._tell(self.listeners, message)

    def _tell(self, listeners: Iterable[Listener], message: FeedMessage) -> None:
        for listener in list(listeners):
            try:
                listener.messages.put_nowait(message)
            except asyncio.QueueFull:
                self._last(listener)  # the browser connects again, and fetches what it shows

    def _last(self, listener: Listener) -> None:
        self.listeners.discard(listener)
        while not listener.messages.empty():
            listener.messages.get_nowait()
        listener.messages.put_nowait(None)


def _midnight() -> datetime:
    """When today began, in the time zone of this machine."""
    today = datetime.now().astimezone().date()
    return datetime.combine(today, _DAWN).astimezone()
