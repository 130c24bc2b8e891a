"""`Listeners`: the browsers and programs that listen to a live feed, by what they may see."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import msgspec
from sse_starlette import ServerSentEvent

from offhook_console.people import View

K = TypeVar("K")

AHEAD = 1000  # messages for a browser that does not read
_PINGED = 50  # listeners in a row, before others have their turn
_RETRY = 500  # ms until a browser connects again


@dataclass(frozen=True)
class FeedMessage:
    """A message: HTML fragments, the names of what has changed, a screen pop, or an id alone.

    Attributes:
        id: where a browser goes on after a break; None: it keeps the one it has.
    """

    event: str
    data: str
    id: str | None = None

    # Encoded once, however many listen.

    @cached_property
    def as_sse(self) -> bytes:
        """The message as a server-sent event."""
        if not self.event:  # a browser tells no page
            return (f"id: {self.id}" if self.id else ":").encode() + b"\r\n\r\n"
        return ServerSentEvent(self.data, event=self.event, id=self.id, retry=_RETRY).encode()

    @cached_property
    def as_json(self) -> str:
        """The message of a screen pop for a WebSocket."""
        whole: dict[str, Any] = {"id": self.id}
        if self.event:
            whole[self.event] = msgspec.Raw(self.data.encode())
        return msgspec.json.encode(whole).decode()


@dataclass(frozen=True)
class OwnPhones:
    """Whose screen pops these are. People with equal ones share what is made.

    Attributes:
        own: the extensions of the person.
        masked: whether numbers are masked.
        url: the template of the URL that a pop opens; None: it opens none.
    """

    own: frozenset[str] = frozenset()
    masked: bool = True
    url: str | None = None


NO_PHONES = OwnPhones()
PING = FeedMessage("", "")  # keeps a connection open through proxies; a WebSocket has its own


@dataclass(eq=False)
class Listener:
    """A browser or a program that listens.

    Attributes:
        pages: whether it shows pages; a program gets screen pops alone.
        waiting: the messages that it has not read yet.
    """

    view: View
    phones: OwnPhones
    pages: bool = True
    waiting: list[FeedMessage] = field(default_factory=list)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: bool = False

    def begin(self, messages: Iterable[FeedMessage]) -> None:
        """Add the messages with which the stream begins, however many they are."""
        self.waiting += messages
        self._wake.set()

    def put(self, message: FeedMessage) -> bool:
        """Add a message; False if it does not read them."""
        if len(self.waiting) >= AHEAD:
            return False
        if not self._ended:
            self.waiting.append(message)
            self._wake.set()
        return True

    def end(self, *last: FeedMessage) -> None:
        """Let it have these messages, and no more."""
        self._ended = True
        self.waiting = [*last]
        self._wake.set()

    async def batch(self) -> list[FeedMessage]:
        """All messages that wait, at least one; none if there are no more."""
        await self._wake.wait()
        if not self._ended:
            self._wake.clear()
        found, self.waiting = self.waiting, []
        return found


class ListenersOf(dict[K, set[Listener]]):
    """Those that listen, by what their streams depend on: no key is left without a listener."""

    @contextmanager
    def listening(self, key: K, listener: Listener) -> Iterator[None]:
        """Keep a listener while in this context."""
        self.setdefault(key, set()).add(listener)
        try:
            yield
        finally:
            self[key].discard(listener)
            if not self[key]:
                del self[key]


class Listeners:
    """All that listen to one feed."""

    def __init__(self) -> None:
        self._of_view: dict[View, dict[Listener, None]] = {}
        self._of_phones: dict[str, dict[Listener, None]] = {}
        self.all: set[Listener] = set()
        self._closed = False

    @property
    def views(self) -> Mapping[View, Iterable[Listener]]:
        """Those that show pages, by what they see."""
        return self._of_view

    def with_phones(self, extensions: Iterable[str]) -> dict[OwnPhones, list[Listener]]:
        """Those who have one of these extensions."""
        found = {each: None for one in extensions for each in self._of_phones.get(one, ())}
        grouped: dict[OwnPhones, list[Listener]] = {}
        for listener in found:
            grouped.setdefault(listener.phones, []).append(listener)
        return grouped

    @contextmanager
    def listening(
        self, view: View, phones: OwnPhones = NO_PHONES, *, pages: bool = True
    ) -> Iterator[Listener]:
        """Listen while in this context."""
        listener = Listener(view, phones, pages)
        self.all.add(listener)
        for group in self._groups(listener):
            group[listener] = None
        if self._closed:
            self._end(listener)
        try:
            yield listener
        finally:
            self._remove(listener)

    def tell(self, listeners: Iterable[Listener], message: FeedMessage) -> None:
        """Send a message; end the streams of those that do not read theirs."""
        slow = [listener for listener in listeners if not listener.put(message)]
        for listener in slow:
            self._end(listener)  # the browser connects again, and fetches what it shows

    def tell_pages(self, message: FeedMessage) -> None:
        """Send a message to all that show pages."""
        self.tell((each for group in self._of_view.values() for each in group), message)

    async def ping(self) -> None:
        """Keep all connections open."""
        listeners = list(self.all)
        for at in range(0, len(listeners), _PINGED):
            self.tell(listeners[at : at + _PINGED], PING)
            await asyncio.sleep(0)

    def close(self) -> None:
        """End all streams, and those that a request begins which came before."""
        self._closed = True
        for listener in list(self.all):
            self._end(listener)

    def _groups(self, listener: Listener) -> Iterator[dict[Listener, None]]:
        if listener.pages:
            yield self._of_view.setdefault(listener.view, {})
        for extension in listener.phones.own:
            yield self._of_phones.setdefault(extension, {})

    def _end(self, listener: Listener) -> None:
        self._remove(listener)
        listener.end()

    def _remove(self, listener: Listener) -> None:
        self.all.discard(listener)
        for group in self._groups(listener):
            group.pop(listener, None)
        self._of_view = {view: group for view, group in self._of_view.items() if group}
        self._of_phones = {one: group for one, group in self._of_phones.items() if group}
