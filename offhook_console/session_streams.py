"""`SessionStreams`: a stream that a session opened ends with it, so that the tab asks who it is."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime

from offhook_console.listeners import Listener
from offhook_console.people import Person


class SessionStreams:
    """Knows who listens with a session."""

    def __init__(self) -> None:
        self._listeners: defaultdict[tuple[str, str], set[Listener]] = defaultdict(set)

    @contextmanager
    def listening(
        self, person: Person, listening: AbstractContextManager[Listener]
    ) -> Iterator[Listener]:
        """While in this context, a person listens; for no longer than the session lasts."""
        with listening as listener:
            if person.until is None:
                yield listener
                return
            seconds = (person.until - datetime.now(UTC)).total_seconds()
            timer = asyncio.get_running_loop().call_later(seconds, listener.end)
            mine = self._listeners[person.tenant, person.name]
            mine.add(listener)
            try:
                yield listener
            finally:
                timer.cancel()
                mine.discard(listener)
                if not mine:
                    self._listeners.pop((person.tenant, person.name), None)

    async def end(self, person: Person) -> None:
        """End the streams of a person who signs out. Other sessions of theirs connect again."""
        for listener in self._listeners.get((person.tenant, person.name), ()):
            listener.end()
