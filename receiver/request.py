"""`RequestCycle`: one callback on its connection, from the request's headers to the response.

It uses no ASGI scope and no task per callback, which doubles the throughput of a core.
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

CACHED_PATHS = 65_536  # about 20 MB


class Callbacks:
    """What all request cycles share."""

    def __init__(self, settings: Settings, commit: GroupCommit, inbox: Inbox) -> None:
        self.settings = settings
        self.commit = commit
        self._inbox = inbox
        self._keeping: set[asyncio.Task[None]] = set()
        # Safe: the path includes the token, and invalid ones raise, so they are not cached.
        self.verified = lru_cache(CACHED_PATHS)(partial(verified, settings=settings))

    def quarantine(
        self, request: CallbackRequest, refusal: RefusedCallback, then: Callable[[], None]
    ) -> None:
        """Put a refused callback into quarantine, then call `then`."""
        keeping = asyncio.create_task(self._quarantine(request, refusal))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        keeping.add_done_callback(lambda _: then())

    async def close(self) -> None:
        """Return when all refused callbacks are in quarantine."""
        if self._keeping:
            await asyncio.wait(self._keeping)

    async def _quarantine(self, request: CallbackRequest, refusal: RefusedCallback) -> None:
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
            reason = str(error) or "Redis does not respond"
            log.error("cannot quarantine a refused callback: %s", reason)


class RequestCycle:
    """One callback. Has the interface of uvicorn's `RequestResponseCycle`.

    Args:
        respond: sends status and body (JSON). Called at most once, and not after a disconnect.
        send_continue: called when the body is wanted.
        keep_alive: the connection may be used again.
    """

    __slots__ = (
        "_begun",
        "_callbacks",
        "_content_type",
        "_path",
        "_query",
        "_respond",
        "_send_continue",
        "_timed_out",
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
        respond: Callable[["RequestCycle", int, bytes], None],
        send_continue: Callable[[], None],
        keep_alive: bool,
    ) -> None:
        self._callbacks = callbacks
        self._path = path
        self._query = query
        self._content_type = content_type
        self._respond = respond
        self._send_continue = send_continue
        self._begun = self._timed_out = False
        self.busy = False  # the rest of the request is not needed
        self.method = method
        self.keep_alive = keep_alive
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.response_started = self.response_complete = False
        self.message_event = self  # uvicorn calls `set` on it after each change

    def begin(self) -> None:
        """Process the request: earlier ones on the connection have their responses."""
        self._begun = True
        try:
            _, _, event_type = self._callbacks.verified(self._path)
        except NoSuchCallback:
            self._answer(404, NOT_FOUND)
            return
        if event_type == SELF_TEST:
            self._answer(200, SELF_TESTED)
            return
        if self.more_body:
            self._send_continue()
        self.set()

    def set(self) -> None:
        """React to a change: more of the body, its end, or a disconnect."""
        if self.busy or not self._begun:
            return
        settings = self._callbacks.settings
        if self._timed_out:
            message = f"The body took longer than {settings.read_timeout:g} seconds."
            self._refuse(RefusedCallback(408, "read_timeout", message))
            return
        if self.more_body and len(self.body) <= settings.max_body:
            if self.disconnected:
                self._refuse(RefusedCallback(400, "incomplete_body", "The body ended too early."))
            return
        self.busy = True
        try:
            self._accept()
        except Exception:
            log.exception("unexpected error while accepting a callback")
            self._answer(500, error_body("internal_error", "The event was not accepted."))

    def time_out(self) -> None:
        """Refuse the request, because its body takes too long."""
        self._timed_out = True
        self.set()

    def _request(self) -> CallbackRequest:
        names = self._callbacks.verified(self._path)
        body = bytes(self.body)
        return CallbackRequest(*names, self.method, self._content_type, self._query, body)

    def _accept(self) -> None:
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
            log.error("a callback was not accepted: %s", outcome)
            message = "The event could not be stored; it was not accepted."
            self._answer(503, error_body("inbox_unavailable", message))
        else:
            self._answer(200, ACCEPTED if outcome else REPEATED)

    def _refuse(self, refusal: RefusedCallback) -> None:
        self.busy = True
        answer = partial(self._answer, refusal.status, error_body(refusal.code, refusal.message))
        self._callbacks.quarantine(self._request(), refusal, answer)

    def _answer(self, status: int, body: bytes) -> None:
        self.busy = True
        if self.disconnected or self.response_complete:
            return
        if status in _CLOSING:
            self.keep_alive = False
        self.response_started = self.response_complete = True
        self._respond(self, status, body)


def error_body(code: str, message: str) -> bytes:
    """Return the JSON body of an error response."""
    return msgspec.json.encode({"error": {"code": code, "message": message}})


ACCEPTED = b'{"status":"accepted"}'
REPEATED = b'{"status":"repeated"}'
SELF_TESTED = b'{"status":"self-test"}'  # the secret is right; this is not an event
NOT_FOUND = error_body("not_found", "There is nothing here.")

# Close the connection after these instead of waiting for the rest of the request.
_CLOSING = frozenset({404, 408, 413})
