"""`PopFeed`: screen pops for those who listen, and what they missed while they did not."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from offhook.call import Call
from offhook_console.call_views import Labels
from offhook_console.listeners import FeedMessage, Listeners, OwnPhones
from offhook_console.screen_pop import Pop, pop_of

_KEPT = 2000  # changes of calls
_GO_ON = ("ringing", "answered")


class _Change(NamedTuple):
    number: int
    before: Call | None
    now: Call


class PopFeed:
    """Tells those who listen of the calls at their phones.

    An id of a message is that of the change before which nothing is missing. It is of one process:
    another one sends, in place of the changes, each call as it is now.
    """

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._process = f"{time.time_ns():x}"
        self._changes: deque[_Change] = deque(maxlen=_KEPT)
        self._number = 0

    def show(self, before: Call | None, now: Call, labels: Labels) -> None:
        """Tell of a call that has changed."""
        self._number += 1
        change = _Change(self._number, before, now)
        self._changes.append(change)
        for phones, listeners in self._listeners.with_phones(now.extensions).items():
            for message in self._of_change(change, phones, labels):
                self._listeners.tell(listeners, message)

    def show_again(self, calls: Iterable[Call], labels: Labels) -> None:
        """Tell everyone of all these calls: some may have changed unseen."""
        for call in calls:
            for phones, listeners in self._listeners.with_phones(call.extensions).items():
                pop = pop_of(call, phones, labels)
                if pop is not None:
                    self._listeners.tell(listeners, self._message(pop, self._number))

    def start(
        self, phones: OwnPhones, after: str | None, calls: Iterable[Call], labels: Labels
    ) -> Iterator[FeedMessage]:
        """The messages with which a stream starts.

        Args:
            after: the id of the last message that was read; None: none was.
            calls: those that go on, and those that ended lately.
        """
        process, _, number = (after or "").partition("-")
        known = int(number) if process == self._process and number.isdecimal() else -1
        oldest = self._changes[0].number if self._changes else 1
        if oldest - 1 <= known <= self._number:
            for change in self._changes:
                if change.number > known:
                    yield from self._of_change(change, phones, labels)
        else:
            for call in calls:
                pop = pop_of(call, phones, labels)
                if pop is not None and (after is not None or pop.state in _GO_ON):
                    yield self._message(pop, self._number)
        yield FeedMessage("", "", self._id(self._number))

    def _of_change(
        self, change: _Change, phones: OwnPhones, labels: Labels
    ) -> Iterator[FeedMessage]:
        now = pop_of(change.now, phones, labels)
        before = pop_of(change.before, phones, labels) if change.before is not None else None
        if now is not None and now != before:
            yield self._message(now, change.number)

    def _message(self, pop: Pop, number: int) -> FeedMessage:
        return FeedMessage("pop", msgspec.json.encode(pop).decode(), self._id(number))

    def _id(self, number: int) -> str:
        return f"{self._process}-{number}"
