"""`SessionStreams`: a stream that a session opened ends with it, so that the tab asks who it is."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime

from offhook_console.listeners import Listener, ListenersOf
from offhook_console.people import Person


class SessionStreams:
    """Knows who listens with a session."""

    def __init__(self) -> None:
        self._listeners: ListenersOf[tuple[str, str]] = ListenersOf()  # by tenant and name

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
            try:
                with self._listeners.listening((person.tenant, person.name), listener):
                    yield listener
            finally:
                timer.cancel()

    async def end(self, person: Person) -> None:
        """End the streams of a person who signs out. Other sessions of theirs connect again."""
        for listener in self._listeners.get((person.tenant, person.name), ()):
            listener.end()
