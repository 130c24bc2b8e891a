"""`create_app()`: the receiver's routes, error responses, startup and shutdown."""

import asyncio
import gc
import logging
import multiprocessing
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from setproctitle import setproctitle
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from offhook.callback_url import PREFIX
from offhook.connection import connect
from offhook.inbox import Inbox
from offhook.operations.running_files import Loaded
from offhook.operations.traces import open_traces
from offhook.settings import Settings, load_settings
from offhook.tasks import end
from receiver.callback import header
from receiver.connections import Connections
from receiver.event_store import EventStore, started
from receiver.following import follow
from receiver.group_commit import GroupCommit
from receiver.refusals import Refusals
from receiver.request import NOT_FOUND, Callbacks, RequestCycle, error_body
from receiver.scraping import Scraping
from receiver.watch import Watch

log = logging.getLogger("offhook.receiver")


class Receiver:
    """What the routes share. Connects while the app runs, not when it is built."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.redis = connect(settings.redis_url)
        self.inbox = Inbox(self.redis, settings.partitions, settings.durability, settings.replicas)
        self.store = EventStore(settings, self.inbox)
        self.commit = GroupCommit(self.store.put, settings.partitions)
        self.refusals = Refusals()
        self.callbacks = Callbacks(settings, self.commit, self.inbox, self.refusals)
        self.connections = Connections(settings.proxies, settings.source_rate, self.refusals)
        self.callbacks.traces = open_traces(settings, "offhook-receiver")
        self.scraping = Scraping(settings)
        self.watch = Watch(
            settings, self.inbox, self.store, self.callbacks, self.refusals, self.connections
        )

    async def take(self, settings: Settings) -> None:
        """Use other settings, from the next request on."""
        await self.store.take(settings)
        self.callbacks.take(settings)
        self.watch.take(settings)
        self.connections.take(settings.proxies, settings.source_rate)
        self.scraping.take(settings)

    async def close(self) -> None:
        await self.watch.store_counts()
        await self.store.close()
        await self.scraping.close()
        if self.callbacks.traces is not None:
            await asyncio.to_thread(self.callbacks.traces.close)
        await self.redis.aclose()


def _follow(receiver: Receiver, loaded: Loaded) -> Callable[[], None]:
    loop = asyncio.get_running_loop()

    def take(settings: Settings, loaded: Loaded) -> None:
        asyncio.run_coroutine_threadsafe(receiver.take(settings), loop).result()
        log.info("changed to version %s", loaded.version)

    return follow(receiver.settings, loaded, take)


class CallbackEndpoint:
    """The callback URL as an ASGI app, for servers other than `BoundedHttp`."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await not_found(scope, receive, send)
            return
        response: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

        def respond(cycle: RequestCycle, status: int, body: bytes) -> None:
            if not response.done():  # cancelled when the server gives up on the client
                response.set_result((status, body))

        peer = scope["client"][0] if scope.get("client") else ""
        address = self._callbacks.address(peer, scope["headers"])
        cycle = RequestCycle(
            self._callbacks,
            method=scope["method"],
            path=scope["path"] if self._callbacks.allows(address) else "",
            query=scope["query_string"],
            content_type=header(scope["headers"], b"content-type"),
            respond=respond,
            send_continue=lambda: None,
            keep_alive=True,
            address=lambda: address,
        )
        cycle.begin()
        try:
            async with asyncio.timeout(self._callbacks.settings.read_timeout):
                while cycle.more_body and not cycle.busy:
                    message = await receive()
                    cycle.disconnected = message["type"] == "http.disconnect"
                    cycle.body += message.get("body", b"")
                    cycle.more_body = message.get("more_body", cycle.disconnected)
                    cycle.set()
        except TimeoutError:
            cycle.time_out()
        if not cycle.disconnected:
            status, body = await response
            close = [] if cycle.keep_alive else [(b"connection", b"close")]
            allow = [(b"allow", b"GET, POST")] if status == 405 else []
            await _send_json(send, status, body, allow + close)


async def _send_json(send: Send, status: int, body: bytes, more: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", b"%d" % len(body))
    headers = [length, (b"content-type", b"application/json"), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def live(request: Request) -> Response:
    """Report that the process responds."""
    return JSONResponse({"status": "live"})


async def ready(request: Request) -> Response:
    """Report whether the inbox or the journal accepts events, and if not, why."""
    store: EventStore = request.app.state.receiver.store
    refusals: Refusals = request.app.state.receiver.refusals
    if not store.takes_directly and store.journal_fault:
        problems = [f"redis: {store.redis_fault}", store.journal_fault]
        return JSONResponse({"status": "not ready", "problems": problems}, status_code=503)
    notes = []
    if not store.takes_directly:
        notes.append(f"redis: {store.redis_fault or 'connecting, or draining the journal'}")
    notes += refusals.notes()
    return JSONResponse({"status": "ready", "journal": store.journal_size, "notes": notes})


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a URL that no route matches."""
    if scope["type"] == "http":
        await _send_json(send, 404, NOT_FOUND, [(b"connection", b"close")])
    else:  # a web socket
        await send({"type": "websocket.close", "code": 1000})


async def http_error(request: Request, error: Exception) -> Response:
    """Give Starlette's own errors the same body as ours."""
    if not isinstance(error, HTTPException):
        raise error
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return Response(
        error_body(code, error.detail), error.status_code, error.headers, "application/json"
    )


class _NoSecrets(logging.Filter):
    """Removes tokens and parameters from the URLs in uvicorn's access log, if that is enabled."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                _without_secrets(part) if isinstance(part, str) else part for part in record.args
            )
        return True


def _without_secrets(text: str) -> str:
    before, prefix, _ = text.partition(f"{PREFIX}/")
    return f"{before}{prefix}***" if prefix else text


_no_secrets = _NoSecrets()


def create_app(settings: Settings | None = None, loaded: Loaded | None = None) -> Starlette:
    """The receiver as an ASGI app.

    Args:
        settings: the configuration; read from file and environment when not given.
        loaded: its version, to take part in reloads.

    Raises:
        ConfigError: the configuration is wrong, or there is no secret.
    """
    for name in ("uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).addFilter(_no_secrets)
    if multiprocessing.parent_process() is not None:  # one of several; `ps` shows only Python's
        setproctitle("offhook serve: callbacks")
    receiver = Receiver(settings or load_settings())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        storing = await started(receiver.store)
        watching = asyncio.create_task(receiver.watch.run())
        # Keep the collector from scanning these objects while callbacks wait.
        gc.collect()
        gc.freeze()
        leave = _follow(receiver, loaded) if loaded is not None else None
        try:
            yield {
                "callbacks": receiver.callbacks,
                "connections": receiver.connections,
            }
        finally:
            if leave is not None:
                await asyncio.to_thread(leave)
            await receiver.callbacks.quarantine.close()
            await receiver.commit.close()
            await end(watching)
            await end(storing)
            await receiver.close()

    app = Starlette(
        routes=[
            Mount(PREFIX, app=CallbackEndpoint(receiver.callbacks)),
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/metrics", receiver.scraping.respond),
        ],
        exception_handlers={HTTPException: http_error},
        lifespan=lifespan,
    )
    app.router.default = not_found
    app.router.redirect_slashes = False
    app.state.receiver = receiver
    return app
