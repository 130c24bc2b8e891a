"""Real HTTP servers for tests, and reading a list to its end."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import httpx
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from unifiedapi.listing import Listing
from unifiedapi.resources import Resource
from unifiedapi.sandbox.tls import Certificate

T = TypeVar("T", bound=Resource)


async def read(listing: Listing[T]) -> list[T]:
    return [entry async for entry in listing]


class Server:
    """An app that passes requests on to another app, which a test may replace."""

    app: ASGIApp
    url: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.app(scope, receive, send)


class _Server(uvicorn.Server):
    """Ends at once, not within two tenths of a second."""

    running = False

    def end(self) -> None:
        self.should_exit = True
        if self.running:
            self._loop.call_soon_threadsafe(self._ended.set)

    async def main_loop(self) -> None:
        await self.on_tick(0)  # sets the date
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self.running = True
        await self._ended.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in (*self.servers, *(sockets or ())):
            listening.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                while state.connections or state.tasks:
                    await asyncio.sleep(0.002)
        for task in state.tasks:
            task.cancel()
        await self.lifespan.shutdown()


@contextmanager
def serve(
    app: ASGIApp, certificate: Certificate | None = None, lifespan: Literal["on", "off"] = "off"
) -> Iterator[str]:
    """Run the app on a free port, in a thread. Yield the base URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = uvicorn.Config(
            app,
            log_level="critical",
            access_log=False,
            ws="none",
            lifespan=lifespan,
            ssl_certfile=certificate.certificate_file if certificate else None,
            ssl_keyfile=certificate.key_file if certificate else None,
        )
        server = _Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            deadline = time.monotonic() + 10
            while not server.running:
                assert thread.is_alive()
                assert time.monotonic() < deadline
                time.sleep(0.005)
            scheme = "https" if certificate else "http"
            yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.end()
            thread.join()


@dataclass(frozen=True)
class Reply:
    """One scripted response."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds before it
    hang_up: bool = False  # close the connection instead


@dataclass
class Recorded:
    """One recorded request."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, str]:
        return dict(httpx.QueryParams(self.body.decode()))


class Script:
    """An ASGI app that gives its responses in order, and then the last one forever."""

    def __init__(self, *answers: Reply) -> None:
        self.answers = list(answers)
        self.requests: list[Recorded] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.requests.append(
            Recorded(
                request.method,
                scope["raw_path"].decode(),
                request.query_params.multi_items(),
                dict(request.headers),
                await request.body(),
            )
        )
        reply = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await asyncio.sleep(reply.delay)
        if reply.hang_up:
            # A longer Content-Length makes uvicorn close the connection.
            with suppress(RuntimeError):
                await Response(b"{", 200, {"Content-Length": "100"})(scope, receive, send)
            return
        body = reply.body
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        await Response(body, reply.status, reply.headers)(scope, receive, send)
