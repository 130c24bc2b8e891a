"""`Exchange`: one callback on its connection, from the head of the request to the answer.

Of each callback there is neither an ASGI scope nor a task: with them a core takes half as many.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache, partial

import msgspec
from redis.exceptions import RedisError

from offhook.callback_url import SELF_TEST
from offhook.errors import InboxUnavailable, RefusedCallback
from offhook.inbox import Inbox, quarantine
from offhook.settings import Settings
from receiver.callback import (
    CallbackRequest,
    NoSuchCallback,
    accept,
    fingerprint,
    quarantined,
    verified,
)
from receiver.group_commit import GroupCommit

log = logging.getLogger("offhook.receiver")

KNOWN_PATHS = 65_536  # about 20 MB


class Callbacks:
    """What the exchanges share: who is who, where events go, where refused callbacks go."""

    def __init__(self, settings: Settings, commit: GroupCommit, inbox: Inbox) -> None:
        self.settings = settings
        self.commit = commit
        self._inbox = inbox
        self._keeping: set[asyncio.Task[None]] = set()
        # The token is part of the path: one that was verified is known again. Others are not kept.
        self.verified = lru_cache(KNOWN_PATHS)(partial(verified, settings=settings))

    def keep(
        self, request: CallbackRequest, refusal: RefusedCallback, then: Callable[[], None]
    ) -> None:
        """Keep a refused callback for a person to look at, then call `then`."""
        keeping = asyncio.create_task(self._keep(request, refusal))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        keeping.add_done_callback(lambda _: then())

    async def close(self) -> None:
        """Return when nothing is being kept any more."""
        if self._keeping:
            await asyncio.wait(self._keeping)

    async def _keep(self, request: CallbackRequest, refusal: RefusedCallback) -> None:
        log.warning(
            "a callback was refused: %s",
            refusal.code,
            extra={"pbx": request.pbx, "extension": request.extension},
        )
        kept = quarantined(request, refusal, self.settings.max_body) | {
            "received": datetime.now(UTC).isoformat()
        }
        try:
            async with asyncio.timeout(self.settings.patience):
                await quarantine.keep(self._inbox.redis, kept, self.settings.quarantine_size)
        except (RedisError, TimeoutError) as error:
            reason = str(error) or "Redis does not answer"
            log.error("a refused callback could not be kept: %s", reason)


class Exchange:
    """One callback. Stands where uvicorn has a `RequestResponseCycle`, and is asked the same.

    Args:
        answer: sends status and body (JSON). Called once, not at all when the client has gone.
        go_on: called when the body is wanted.
        keep_alive: the connection may be used again.
    """

    __slots__ = (
        "_answering",
        "_callbacks",
        "_content_type",
        "_go_on",
        "_late",
        "_path",
        "_query",
        "_turn",
        "body",
        "busy",
        "disconnected",
        "keep_alive",
        "message_event",
        "method",
        "more_body",
        "response_complete",
        "response_started",
    )

    def __init__(
        self,
        callbacks: Callbacks,
        *,
        method: str,
        path: str,
        query: bytes,
        content_type: str,
        answer: Callable[["Exchange", int, bytes], None],
        go_on: Callable[[], None],
        keep_alive: bool,
    ) -> None:
        self._callbacks = callbacks
        self._path = path
        self._query = query
        self._content_type = content_type
        self._answering = answer
        self._go_on = go_on
        self._turn = self._late = False
        self.busy = False  # nothing more is wanted of the request
        self.method = method
        self.keep_alive = keep_alive
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.response_started = self.response_complete = False
        self.message_event = self  # uvicorn calls its `set` whenever something is new

    def begin(self) -> None:
        """The answers to earlier requests of the connection were sent."""
        self._turn = True
        try:
            _, _, event_type = self._callbacks.verified(self._path)
        except NoSuchCallback:
            self._answer(404, NOT_FOUND)
            return
        if event_type == SELF_TEST:
            self._answer(200, SELF_TESTED)
            return
        if self.more_body:
            self._go_on()
        self.set()

    def set(self) -> None:
        """There is more of the body, or all of it, or the connection is lost."""
        if self.busy or not self._turn:
            return
        settings = self._callbacks.settings
        if self._late:
            message = f"The body took longer than {settings.read_timeout:g} seconds."
            self._refuse(RefusedCallback(408, "read_timeout", message))
            return
        if self.more_body and len(self.body) <= settings.max_body:
            if self.disconnected:
                self._refuse(RefusedCallback(400, "incomplete_body", "The body ended too early."))
            return
        self.busy = True
        try:
            self._take()
        except Exception:
            log.exception("a callback was not taken, for a reason that nobody thought of")
            self._answer(500, error_body("internal_error", "The event was not accepted."))

    def too_late(self) -> None:
        """The body takes too long."""
        self._late = True
        self.set()

    def _request(self) -> CallbackRequest:
        names = self._callbacks.verified(self._path)
        body = bytes(self.body)
        return CallbackRequest(*names, self.method, self._content_type, self._query, body)

    def _take(self) -> None:
        try:
            event = accept(self._request(), self._callbacks.settings)
        except RefusedCallback as refusal:
            self._refuse(refusal)
            return
        if log.isEnabledFor(logging.DEBUG):
            log.debug("accepting", extra={"event": event.id, "call": event.call})
        self._callbacks.commit.submit(fingerprint(event), event, self._stored)

    def _stored(self, outcome: bool | InboxUnavailable) -> None:
        if isinstance(outcome, InboxUnavailable):
            log.error("a callback was not taken: %s", outcome)
            message = "The event could not be stored; it was not accepted."
            self._answer(503, error_body("inbox_unavailable", message))
        else:
            self._answer(200, ACCEPTED if outcome else REPEATED)

    def _refuse(self, refusal: RefusedCallback) -> None:
        self.busy = True
        answer = partial(self._answer, refusal.status, error_body(refusal.code, refusal.message))
        self._callbacks.keep(self._request(), refusal, answer)

    def _answer(self, status: int, body: bytes) -> None:
        self.busy = True
        if self.disconnected or self.response_complete:
            return
        if status in _LAST_WORDS:
            self.keep_alive = False
        self.response_started = self.response_complete = True
        self._answering(self, status, body)


def error_body(code: str, message: str) -> bytes:
    """A refusal, as JSON."""
    return msgspec.json.encode({"error": {"code": code, "message": message}})


ACCEPTED = b'{"status":"accepted"}'
REPEATED = b'{"status":"repeated"}'
SELF_TESTED = b'{"status":"self-test"}'  # the secret is right; no event comes of it
NOT_FOUND = error_body("not_found", "There is nothing here.")

# After these the rest of the request is not waited for: the connection ends with the answer.
_LAST_WORDS = frozenset({404, 408, 413})
