"""`LiveFeed`: what changes, pushed to the browsers that listen.

One reader of the inbox for all of them, however many there are. A fragment is rendered once for
all people with the same view.
"""

import asyncio
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

from offhook.call import Call
from offhook.calls import MissedCaller, summarize
from offhook.errors import LaterLayout
from offhook.event import CALLBACKS, EventType
from offhook.extensions import ExtensionSettings, Name
from offhook.inbox import Inbox, feed, quarantine
from offhook.inbox.call_store import FOLDED, Calls
from offhook.inbox.missed_calls import MissedCalls
from offhook.operations.bulk import BulkOperations
from offhook.operations.status import HandlerStatus, handler_statuses
from offhook.settings import Settings
from offhook.tasks import end, woken
from offhook_console.board import JUST_ENDED, Board
from offhook_console.call_query import latest_calls, live_calls
from offhook_console.call_views import call_key, view_call
from offhook_console.labels import ExtensionLabels
from offhook_console.languages import speaking
from offhook_console.listeners import NO_PHONES, FeedMessage, Listener, Listeners, OwnPhones
from offhook_console.missed_views import open_callers, shows
from offhook_console.moments import midnight_of
from offhook_console.people import View
from offhook_console.pop_feed import PopFeed
from offhook_console.rendering import Pages

log = logging.getLogger("offhook.console")

# Seconds after an event at which its call is looked at: a server folds it within milliseconds,
# unless it is busy.
_LOOKS = (0.03, 0.25, 1.0, 4.0)
_HOUR = timedelta(hours=1)
_COUNTED = 5000  # events of a partition, when the events per minute are counted at the start
_RELOAD = 10  # minutes between two readings of the missed calls, of which some may be erased
_TIDY = 1000  # calls of the day after which those that had ended long before are forgotten
_FIGURES = 2.0  # seconds between two pushes of the figures
_DELIVERIES = 2.0  # seconds between two looks at the handlers
_UNWATCHED = 10.0  # the same while no browser listens
_CANCEL_AGAIN = 0.5  # seconds in which they end their own tasks, also on a busy machine
_CALL_EVENTS = FOLDED | {
    EventType.CALL_STARTED,
    EventType.CALL_ANSWERED,
    EventType.CALL_ENDED,
    EventType.CALL_CORRECTED,
}


# A wall fetches all that it shows: a card of the board would have the caller's name.
_WALL_CHANGED = FeedMessage("changed", json.dumps(["wall"]))


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
        labels: of the extensions of all tenants.
        tenant: whose events; empty: the operator's, and everything about deliveries.
    """

    def __init__(
        self,
        settings: Settings,
        inbox: Inbox,
        rq: Redis,
        pages: Pages,
        labels: ExtensionLabels,
        tenant: str = "",
    ) -> None:
        self._settings = settings
        self._tenant = tenant
        self._region = settings.of(tenant).region
        self._inbox = inbox
        self._rq = rq
        self._pages = pages
        self._calls = Calls(inbox)
        self._labels = labels
        self._operations = BulkOperations(inbox, rq)
        self._due: dict[str, list[float]] = {}
        self._changed = asyncio.Event()
        self._figures_due: set[View] = set()
        self.listeners = Listeners()
        self._pops = PopFeed(self.listeners)
        self.missed = MissedCalls(inbox, self._region, tenant)
        self.board = Board(settings.console.answer_within)
        self.deliveries = Deliveries()
        self.down_since: datetime | None = None
        self.loaded = asyncio.Event()  # the calls of the day are known

    @property
    def redis(self) -> AsyncRedis:
        """The server of the inbox."""
        return self._inbox.redis

    @property
    def labels(self) -> Mapping[Name, ExtensionSettings]:
        """The settings of the extensions whose events these are: others' are not shown."""
        return self._labels.of(self._tenant)

    async def refresh_labels(self) -> None:
        """Read the settings of the extensions again, if they have changed."""
        await self._labels.refresh(at_once=True)

    @property
    def is_current(self) -> bool:
        """Whether there is no board of before, to show while Redis is away."""
        return self.down_since is None or not self.loaded.is_set()

    def counts(self, view: View) -> dict[str, int]:
        """The numbers beside the entries of the navigation, for people with this view."""
        counts = {"missed": len(open_callers(self.missed.callers(), view))}
        if view.deliveries:
            handlers = self.deliveries.handlers
            counts |= {
                "handlers": sum(1 for each in handlers if each.circuit is not None),
                "dead-letters": sum(each.dead for each in handlers),
                "quarantine": self.deliveries.quarantined,
            }
        return counts

    @contextmanager
    def listening(
        self,
        view: View,
        phones: OwnPhones = NO_PHONES,
        after: str | None = None,
        *,
        pages: bool = True,
    ) -> Iterator[Listener]:
        """While in this context, people with this view listen.

        Args:
            phones: whose screen pops are wanted.
            after: the id of the last message that was read; None: none was.
            pages: whether pages are shown; else only screen pops are wanted.
        """
        with self.listeners.listening(view, phones, pages=pages) as listener:
            calls = self.board.calls_of(phones.own)
            listener.begin(self._pops.start(phones, after, calls, self.labels))
            if pages:
                listener.begin(self._all_changed(view))
                if self.down_since is not None:
                    listener.begin([FeedMessage("feed", "down")])
            yield listener

    async def run(self) -> None:
        """Read the inbox and tell browsers, until cancelled."""
        while True:
            try:
                await self._follow(await self.load())
            except (RedisError, LaterLayout) as error:
                log.warning("the live feed cannot read the inbox: %s", error)
                self._is_down()
                await asyncio.sleep(1.0)

    def tell_changed(self, name: str) -> None:
        """Tell browsers that something else has changed; walls fetch all that they show."""
        changed = FeedMessage("changed", json.dumps([name]))
        for view, listeners in self.listeners.views.items():
            self.listeners.tell(listeners, _WALL_CHANGED if view.wall else changed)

    async def load(self) -> datetime:
        """Read the calls of today, those that ended a while ago, and those that go on.

        Returns:
            When it began: what came since may be missing.
        """
        began = await feed.server_time(self._inbox.redis)
        await self._labels.refresh()
        await self._inbox.numbering.load()
        now = datetime.now(UTC)
        today = midnight_of(now)
        self.board = Board(self._settings.console.answer_within)
        async for moment in feed.received_since(
            self._inbox, now - _HOUR, _COUNTED, self._tenant, began
        ):
            self.board.count_event(moment)
        number = 0
        async for kept in self._calls.since(min(today, now - _HOUR), self._tenant):
            self.board.put(summarize(kept.state, self._region), today)
            number += 1
            if number % _TIDY == 0:
                self.board.forget(now, today)
        for call in await live_calls(self._inbox, self._region, self._tenant):
            self.board.put(call, today)
        self.board.forget(now, today)
        await self.missed.load()
        if not self._tenant:
            await self.look_at_deliveries()
        self.loaded.set()
        if self.down_since is not None:
            self.down_since = None
            self.listeners.tell_pages(FeedMessage("feed", "up"))
        self._pops.show_again(self.board.calls(), self.labels)
        for view, listeners in self.listeners.views.items():
            for message in self._all_changed(view):
                self.listeners.tell(listeners, message)
        return began

    async def _follow(self, since: datetime) -> None:
        works = [self._read_events(since), self._look_at_calls(), self._push_figures()]
        if not self._tenant:
            works += [self._watch_deliveries(), self._run_operations()]
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end(*tasks, again=_CANCEL_AGAIN)
            for task in tasks:
                if not task.cancelled():
                    task.exception()  # so that asyncio does not report it, too

    async def _read_events(self, since: datetime) -> None:
        async for event in feed.watch_events(self._inbox, self._tenant, since):
            now = time.monotonic()
            if event.type in CALLBACKS:
                self.board.count_event(event.received)
            if event.type in _CALL_EVENTS:
                # What a server has made of a call is in the store by the time it is accepted.
                looks = _LOOKS if event.type in CALLBACKS else (0.0, *_LOOKS[1:])
                self._due[event.call] = [now + after for after in looks]
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
            found = await latest_calls(self._inbox, self._calls, due)
            known = [summarize(kept.state, self._region) for kept in found]
            self._show(known)
            affected = await asyncio.gather(*map(self.missed.take, known))
            missed = [caller for some in affected for caller in some]
            if missed:
                self.tell_missed(missed)

    def tell_missed(self, changed: Iterable[MissedCaller]) -> None:
        """Tell browsers that show these missed callers that they have changed."""
        changed = list(changed)
        for view, listeners in self.listeners.views.items():
            if not view.wall and any(shows(view, caller) for caller in changed):
                self.listeners.tell(listeners, self._nav_counts(view))
                self.listeners.tell(listeners, FeedMessage("changed", json.dumps(["missed"])))

    def _show(self, calls: Iterable[Call]) -> None:
        """Put calls on the board, and push the cards of those that have changed."""
        changed, now = [], datetime.now(UTC)
        today = midnight_of(now)
        for call in calls:
            before = self.board.known(call)
            if before == call:
                continue
            self.board.put(call, today)
            if call.closed_by and (call.ended or call.started) < now - JUST_ENDED:
                continue  # the server catches up; `_push_figures` takes its card away
            self._pops.show(before, call, self.labels)
            changed.append(call)
        for view, listeners in self.listeners.views.items():
            mine = [call for call in changed if view.shows(call)]
            if not mine:
                continue
            self._figures_due.add(view)
            if view.wall:
                self.listeners.tell(listeners, _WALL_CHANGED)
                continue
            with speaking(view.language):
                cards = [view_call(call, view, self.labels) for call in mine]
                html = "".join(self._pages.macro("cards.html", "card", card) for card in cards)
            html += self._pages.macro("cards.html", "lane_counts", self.board.counts(view))
            names = ["calls", *(f"call-{card.key}" for card in cards)]
            self.listeners.tell(listeners, FeedMessage("fragments", html))
            self.listeners.tell(listeners, FeedMessage("changed", json.dumps(names)))

    async def _push_figures(self) -> None:
        minute = datetime.now(UTC).minute
        while True:
            await asyncio.sleep(_FIGURES)
            now = datetime.now(UTC)
            gone = self.board.forget(now, midnight_of(now))
            due, self._figures_due = self._figures_due, set()
            for view, listeners in list(self.listeners.views.items()):
                keys = [call_key(name) for name, call in gone.items() if view.shows(call)]
                if view.wall and (keys or view in due):
                    self.listeners.tell(listeners, _WALL_CHANGED)
                elif keys or view in due:
                    with speaking(view.language):
                        html = self._pages.macro("cards.html", "figures", self.board.figures(view))
                    html += self._pages.macro("cards.html", "gone_cards", keys)
                    html += self._pages.macro("cards.html", "lane_counts", self.board.counts(view))
                    self.listeners.tell(listeners, FeedMessage("fragments", html))
                    await asyncio.sleep(0)  # there may be a thousand views, and calls that ring
            if now.minute != minute:
                minute = now.minute
                if minute % _RELOAD == 0:
                    await self.missed.load()
                self.listeners.tell_pages(FeedMessage("changed", json.dumps(["minute"])))

    async def _watch_deliveries(self) -> None:
        looked = time.monotonic()
        while True:
            await asyncio.sleep(_DELIVERIES)
            watched = any(view.deliveries for view in self.listeners.views)
            if watched or time.monotonic() - looked >= _UNWATCHED:
                await self.look_at_deliveries()
                looked = time.monotonic()

    async def look_at_deliveries(self) -> None:
        """Look at handlers, dead letters and the quarantine, and tell what has changed."""
        before, dead = self.deliveries, _dead(self.deliveries)
        self.deliveries = Deliveries(
            await handler_statuses(self._inbox, self._rq, self._settings),
            await quarantine.length(self._inbox.redis),
            tuple(await self._operations.all()),
        )
        told = [
            name
            for name, changed in {
                "handlers": before.handlers != self.deliveries.handlers,
                "dead-letters": dead != _dead(self.deliveries),
                "quarantine": before.quarantined != self.deliveries.quarantined,
                "operations": before.operations != self.deliveries.operations,
            }.items()
            if changed
        ]
        if not told:
            return
        for view, listeners in self.listeners.views.items():
            if view.deliveries:
                self.listeners.tell(listeners, self._nav_counts(view))
                self.listeners.tell(listeners, FeedMessage("changed", json.dumps(told)))

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

    def _nav_counts(self, view: View) -> FeedMessage:
        with speaking(view.language):
            html = self._pages.macro("cards.html", "nav_counts", self.counts(view))
        return FeedMessage("fragments", html)

    def _all_changed(self, view: View) -> list[FeedMessage]:
        """For a browser that may have missed something: it fetches what it shows."""
        changed = FeedMessage("changed", json.dumps(["all"]))
        return [changed] if view.wall else [self._nav_counts(view), changed]

    def _is_down(self) -> None:
        if self.down_since is None:
            self.down_since = datetime.now(UTC)
            self.listeners.tell_pages(FeedMessage("feed", "down"))


def _dead(deliveries: Deliveries) -> int:
    return sum(each.dead for each in deliveries.handlers)
