"""`create_app()`: the receiver's routes, which error is which status, start and stop."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from offhook.connection import connect, connect_rq
from offhook.errors import InboxUnavailable, RefusedCallback
from offhook.event import CallEvent
from offhook.inbox import Inbox
from offhook.settings import Settings, load_settings
from offhook.tasks import end
from offhook.token import PREFIX, SELF_TEST
from receiver.callback import (
    CallbackRequest,
    NoSuchCallback,
    accept,
    fingerprint,
    header,
    quarantined,
    verify,
)
from receiver.commit import GroupCommit
from receiver.store import Store

log = logging.getLogger("offhook.receiver")

START_WAIT = 0.2  # seconds that the start waits for Redis, before it goes on with the journal


class Receiver:
    """What the routes share. Built before the start, connected while the app runs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.redis = connect(settings.redis_url)
        self.rq = connect_rq(settings.redis_url)
        self.inbox = Inbox(self.redis, settings.partitions, settings.durability)
        self.store = Store(settings, self.inbox, self.rq)
        self.commit = GroupCommit(self.store.put, settings.partitions)

    async def append(self, event: CallEvent) -> bool:
        """Return when the event is safe. False: it already was, this is a repeat.

        Raises:
            InboxUnavailable: it is not.
        """
        return await self.commit.append(fingerprint(event), event)

    async def close(self) -> None:
        await self.store.close()
        await self.redis.aclose()
        self.rq.close()


class CallbackEndpoint:
    """The callback URL, as plain ASGI: no request object, no response object, one append."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._settings = receiver.settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await not_found(scope, receive, send)
            return
        # What is mounted sees the whole path: PREFIX, PBX, extension, event type, token.
        names = scope["path"][len(scope["root_path"]) :].split("/")
        if len(names) != 5:
            await not_found(scope, receive, send)
            return
        request = CallbackRequest(
            pbx=names[1],
            extension=names[2],
            event_type=names[3],
            token=names[4],
            method=scope["method"],
            content_type=header(scope["headers"], b"content-type"),
            query=scope["query_string"],
            body=b"",
        )
        try:
            verify(request, self._settings)
        except NoSuchCallback:
            await not_found(scope, receive, send)
            return
        if request.event_type == SELF_TEST:
            await _send_json(send, 200, SELF_TESTED)
            return
        try:
            request = await self._with_body(request, receive)
            event = accept(request, self._settings)
            fresh = await self._receiver.append(event)
        except RefusedCallback as refusal:
            await self._keep(request, refusal)
            await _send_json(send, refusal.status, _error(refusal.code, refusal.message))
        except InboxUnavailable as error:
            log.error("a callback was not taken: %s", error)
            message = "The event could not be stored; it was not accepted."
            await _send_json(send, 503, _error("inbox_unavailable", message))
        else:
            log.debug(
                "accepted", extra={"event": event.id, "call": event.call, "repeat": not fresh}
            )
            await _send_json(send, 200, ACCEPTED if fresh else REPEATED)

    async def _with_body(self, request: CallbackRequest, receive: Receive) -> CallbackRequest:
        limit = self._settings.max_body
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._settings.read_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedCallback(400, "incomplete_body", "The body ended too early.")
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    chunks.append(chunk)
                    if size > limit or not message.get("more_body", False):
                        break
        except TimeoutError as error:
            seconds = f"{self._settings.read_timeout:g}"
            raise RefusedCallback(
                408, "read_timeout", f"The body took longer than {seconds} seconds."
            ) from error
        body = b"".join(chunks)
        return replace(request, body=body) if body else request

    async def _keep(self, request: CallbackRequest, refusal: RefusedCallback) -> None:
        log.warning(
            "a callback was refused: %s",
            refusal.code,
            extra={"pbx": request.pbx, "extension": request.extension},
        )
        kept = quarantined(request, refusal, self._settings.max_body) | {
            "received": datetime.now(UTC).isoformat()
        }
        try:
            async with asyncio.timeout(self._settings.patience):
                await self._receiver.inbox.quarantine(kept, self._settings.quarantine_size)
        except (RedisError, TimeoutError) as error:
            reason = str(error) or "Redis does not answer"
            log.error("a refused callback could not be kept: %s", reason)


def _error(code: str, message: str) -> bytes:
    return msgspec.json.encode({"error": {"code": code, "message": message}})


ACCEPTED = b'{"status":"accepted"}'
REPEATED = b'{"status":"repeated"}'
SELF_TESTED = b'{"status":"self-test"}'  # the secret is right; no event comes of it
NOT_FOUND = _error("not_found", "There is nothing here.")


# After these the rest of the request is not waited for: the connection ends with the answer.
_LAST_WORDS = frozenset({404, 408, 413})


async def _send_json(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    if status in _LAST_WORDS:
        headers.append((b"connection", b"close"))
    if status == 405:
        headers.append((b"allow", b"GET, POST"))
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
        await _send_json(send, 404, NOT_FOUND)
    else:  # a web socket
        await send({"type": "websocket.close", "code": 1000})


async def http_error(request: Request, error: Exception) -> Response:
    """What Starlette refuses by itself, in the same form as our own refusals."""
    if not isinstance(error, HTTPException):
        raise error
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return Response(
        _error(code, error.detail), error.status_code, error.headers, "application/json"
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
        try:
            yield {"settings": receiver.settings}
        finally:
            await receiver.commit.close()
            await end(storing)
            await receiver.close()

    app = Starlette(
        routes=[
            Mount(PREFIX, app=CallbackEndpoint(receiver)),
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
