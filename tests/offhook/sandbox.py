"""A sandbox PBX that can fail."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.unifiedapi.serving import serve
from unifiedapi.resources import EventMethod, EventType
from unifiedapi.sandbox.server import create_sandbox
from unifiedapi.sandbox.store import Store


@dataclass
class Sandbox:
    """The PBX.

    Attributes:
        requests: method and path of each request.
        dies_after: number of requests to answer; every later response is cut off.
        holds: requests wait while this is so.
    """

    store: Store
    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    dies_after: int | None = None
    holds: bool = False

    def app(self) -> ASGIApp:
        sandbox = create_sandbox(self.store)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if self.dies_after is not None and len(self.requests) >= self.dies_after:
                # Shorter than its Content-Length, so uvicorn closes the connection.
                with suppress(RuntimeError):
                    await Response(b"{", 200, {"Content-Length": "100"})(scope, receive, send)
                return
            self.requests.append((scope["method"], scope["path"]))
            while self.holds:
                await asyncio.sleep(0.02)
            await sandbox(scope, receive, send)

        return app

    def changes(self) -> list[tuple[str, str]]:
        """The requests that change something."""
        return [
            (method, path)
            for method, path in self.requests
            if method != "GET" and not path.startswith("/oauth")
        ]

    def types(self, extension: str) -> list[str]:
        """The types of an extension's phone call events, sorted."""
        return sorted(event.type.label for event in self.store.events(extension))

    def urls(self, extension: str) -> list[str]:
        return [str(event.url) for event in self.store.events(extension)]

    def add(self, extension: str, url: str, note: str = "") -> str:
        """Register a phone call event as another application would, and return its id."""
        made = self.store.add_event(
            extension, type=EventType.HANGUP, method=EventMethod.GET, url=url, note=note
        )
        return made.id


@contextmanager
def sandbox(store: Store | None = None) -> Iterator[Sandbox]:
    """Run a sandbox PBX, by default the example."""
    made = Sandbox(store or Store.example())
    with serve(made.app()) as made.url:
        yield made
