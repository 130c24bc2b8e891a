"""`create_app()`: the receiver's routes, which error is which status, start and stop."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from offhook.callback_url import PREFIX
from offhook.connection import connect, connect_rq
from offhook.inbox import Inbox
from offhook.settings import Settings, load_settings
from offhook.tasks import end
from receiver.callback import header
from receiver.event_store import EventStore
from receiver.group_commit import GroupCommit
from receiver.request import NOT_FOUND, Callbacks, Exchange, error_body

log = logging.getLogger("offhook.receiver")

START_WAIT = 0.2  # seconds that the start waits for Redis, before it goes on with the journal


class Receiver:
    """What the routes share. Built before the start, connected while the app runs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.redis = connect(settings.redis_url)
        self.rq = connect_rq(settings.redis_url)
        self.inbox = Inbox(self.redis, settings.partitions, settings.durability)
        self.store = EventStore(settings, self.inbox, self.rq)
        self.commit = GroupCommit(self.store.put, settings.partitions)
        self.callbacks = Callbacks(settings, self.commit, self.inbox)

    async def close(self) -> None:
        await self.store.close()
        await self.redis.aclose()
        self.rq.close()


class CallbackEndpoint:
    """The callback URL as an ASGI app: for servers that know nothing of an `Exchange`."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await not_found(scope, receive, send)
            return
        answered: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

        def answer(exchange: Exchange, status: int, body: bytes) -> None:
            if not answered.done():  # cancelled, when the server has given up on the client
                answered.set_result((status, body))

        exchange = Exchange(
            self._callbacks,
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"],
            content_type=header(scope["headers"], b"content-type"),
            answer=answer,
            go_on=lambda: None,
            keep_alive=True,
        )
        exchange.begin()
        try:
            async with asyncio.timeout(self._callbacks.settings.read_timeout):
                while exchange.more_body and not exchange.busy:
                    message = await receive()
                    exchange.disconnected = message["type"] == "http.disconnect"
                    exchange.body += message.get("body", b"")
                    exchange.more_body = message.get("more_body", exchange.disconnected)
                    exchange.set()
        except TimeoutError:
            exchange.too_late()
        if not exchange.disconnected:
            status, body = await answered
            close = [] if exchange.keep_alive else [(b"connection", b"close")]
            allow = [(b"allow", b"GET, POST")] if status == 405 else []
            await _send_json(send, status, body, allow + close)


async def _send_json(send: Send, status: int, body: bytes, more: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", b"%d" % len(body))
    headers = [length, (b"content-type", b"application/json"), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def live(request: Request) -> Response:
    """The process answers."""
    return JSONResponse({"status": "live"})


async def ready(request: Request) -> Response:
    """Events can be taken: by the inbox or by the journal. If not, what is in the way."""
    receiver: Receiver = request.app.state.receiver
    store = receiver.store
    if not store.takes_directly and store.fault:
        problems = [f"redis: {store.trouble}", store.fault]
        return JSONResponse({"status": "not ready", "problems": problems}, status_code=503)
    notes = []
    if not store.takes_directly:
        notes.append(f"redis: {store.trouble or 'connecting, or emptying the journal into it'}")
    return JSONResponse({"status": "ready", "journal": store.journal_size, "notes": notes})


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """The answer for every URL that is none of ours."""
    if scope["type"] == "http":
        await _send_json(send, 404, NOT_FOUND, [(b"connection", b"close")])
    else:  # a web socket
        await send({"type": "websocket.close", "code": 1000})


async def http_error(request: Request, error: Exception) -> Response:
    """What Starlette refuses by itself, in the same form as our own refusals."""
    if not isinstance(error, HTTPException):
        raise error
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return Response(
        error_body(code, error.detail), error.status_code, error.headers, "application/json"
    )


class _NoSecrets(logging.Filter):
    """Takes tokens and parameters out of the URLs that uvicorn logs, should it be told to."""

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


def create_app(settings: Settings | None = None) -> Starlette:
    """The receiver as an ASGI app.

    Args:
        settings: the configuration; read from file and environment when not given.

    Raises:
        ConfigError: the configuration is wrong, or there is no secret.
    """
    for name in ("uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).addFilter(_no_secrets)
    receiver = Receiver(settings or load_settings())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        storing = asyncio.create_task(receiver.store.run())
        deadline = asyncio.get_running_loop().time() + START_WAIT
        while not receiver.store.takes_directly and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        # What is there now stays: a collection that looked through it would hold up callbacks.
        gc.collect()
        gc.freeze()
        try:
            yield {"settings": receiver.settings, "callbacks": receiver.callbacks}
        finally:
            await receiver.callbacks.close()
            await receiver.commit.close()
            await end(storing)
            await receiver.close()

    app = Starlette(
        routes=[
            Mount(PREFIX, app=CallbackEndpoint(receiver.callbacks)),
            Route("/health/live", live),
            Route("/health/ready", ready),
        ],
        exception_handlers={HTTPException: http_error},
        lifespan=lifespan,
    )
    app.router.default = not_found
    app.router.redirect_slashes = False
    app.state.receiver = receiver
    return app
