"""`RequestCycle`: one callback on its connection, from the request's headers to the response.

It uses no ASGI scope and no task per callback, which doubles the throughput of a core.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache, partial

import msgspec

from offhook.callback_url import SELF_TEST, revoked_urls, token_version
from offhook.errors import ConfigError, InboxUnavailable, RefusedCallback
from offhook.event import CallEvent
from offhook.inbox import Inbox
from offhook.inbox.refused import CallbackOutcome, Cause
from offhook.operations.traces import Traces
from offhook.settings import Settings
from receiver.callback import (
    CallbackRequest,
    NoSuchCallback,
    accept,
    fingerprint,
    quarantined,
    verified,
)
from receiver.connections import Source, client_address, is_in
from receiver.group_commit import GroupCommit
from receiver.limits import KnownUrl, Shares
from receiver.quarantine_writer import QuarantineWriter
from receiver.refusals import Refusals

log = logging.getLogger("offhook.receiver")

CACHED_PATHS = 65_536  # about 20 MB


class Callbacks:
    """What all request cycles share."""

    def __init__(
        self, settings: Settings, commit: GroupCommit, inbox: Inbox, refusals: Refusals
    ) -> None:
        self.settings = settings
        self.commit = commit
        self.refusals = refusals
        self.traces: Traces | None = None
        self.shares = Shares(settings.tenants)
        self.quarantine = QuarantineWriter(inbox.redis, settings.quarantine_size, settings.patience)
        self._revoked_at = _changed(settings)  # before it is read, so that no change is missed
        self._revoked = revoked_urls(settings.revoked_file)
        # Safe: the path includes the token, and invalid ones raise, so they are not cached.
        self.known = lru_cache(CACHED_PATHS)(self._known)

    def take(self, settings: Settings) -> None:
        """Use other settings from the next request on."""
        self.settings = settings
        self.shares.limit_tenants(settings.tenants)
        self.quarantine.take(settings.quarantine_size, settings.patience)
        self.known.cache_clear()

    def _known(self, path: str) -> KnownUrl:
        pbx, extension, event_type = verified(path, self.settings)
        lowest = self._revoked.version(pbx, extension, event_type)
        if token_version(path.rpartition("/")[2]) < lowest:
            raise NoSuchCallback
        share = self.shares.of(pbx, extension)
        tenant = self.shares.of_tenant(self.settings.tenant_of(pbx, extension))
        return KnownUrl(pbx, extension, event_type, self.settings.url_rate, share, tenant)

    def address(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the address that a request came from."""
        return client_address(peer, headers, self.settings.proxies)

    def allows(self, address: str) -> bool:
        """Return whether callbacks may come from this address. If not, they get a 404."""
        allowed = self.settings.allowed_addresses
        if allowed is None or is_in(address, allowed):
            return True
        self.refusals.count(Cause.ADDRESS, address)
        return False

    async def look_at_revoked(self) -> None:
        """Read which URLs are revoked, if that has changed."""
        changed = await asyncio.to_thread(_changed, self.settings)  # a disk may hang
        if changed != self._revoked_at:
            self._revoked_at = changed
            try:
                self._revoked = await asyncio.to_thread(revoked_urls, self.settings.revoked_file)
            except ConfigError as error:
                log.error("%s; the URLs revoked before stay revoked", error)
            self.known.cache_clear()

    def refuse(
        self, request: CallbackRequest, refusal: RefusedCallback, then: Callable[[], None]
    ) -> None:
        """Put a refused callback into quarantine, then call `then`."""
        self.refusals.note(CallbackOutcome.QUARANTINED)
        tenant = self.settings.tenant_of(request.pbx, request.extension)
        log.warning(
            "a callback was refused: %s",
            refusal.code,
            extra={"tenant": tenant, "pbx": request.pbx, "extension": request.extension},
        )
        kept = quarantined(request, refusal, self.settings.max_body) | {
            "received": datetime.now(UTC).isoformat()
        }
        self.quarantine.keep(kept, then, tenant)


def _changed(settings: Settings) -> tuple[int, int] | None:
    """Return what differs once the file of revoked URLs was written again."""
    try:
        found = settings.revoked_file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


class RequestCycle:
    """One callback. Has the interface of uvicorn's `RequestResponseCycle`.

    Args:
        respond: sends status and body (JSON). Called at most once, and not after a disconnect.
        send_continue: called when the body is wanted.
        keep_alive: the connection may be used again.
        address: of the client, for the log.
        source: whose rate is limited; None for a proxy.
        prove: called if the token is valid.
    """

    __slots__ = (
        "_address",
        "_begun",
        "_callbacks",
        "_content_type",
        "_path",
        "_prove",
        "_query",
        "_respond",
        "_send_continue",
        "_source",
        "_timed_out",
        "_url",
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
        address: Callable[[], str],
        source: Source | None = None,
        prove: Callable[[], None] | None = None,
    ) -> None:
        self._callbacks = callbacks
        self._path = path
        self._query = query
        self._content_type = content_type
        self._respond = respond
        self._send_continue = send_continue
        self._address = address
        self._source = source
        self._prove = prove
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
        callbacks = self._callbacks
        if self._source is not None and not self._source.bucket.take():
            self._too_many(Cause.SOURCE_RATE)
            return
        try:
            self._url = url = callbacks.known(self._path)
        except NoSuchCallback:
            if self._path.count("/") == 5:  # otherwise it is no callback URL at all
                callbacks.refusals.count(Cause.WRONG_TOKEN, self._address())
            self._answer(404, NOT_FOUND)
            return
        if self._prove is not None:
            self._prove()
        if not url.bucket.take():
            self._too_many(Cause.URL_RATE)
            return
        if url.tenant.bucket is not None and not url.tenant.bucket.take():
            self._too_many(Cause.TENANT_RATE)
            return
        if url.event_type == SELF_TEST:
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
        url, body = self._url, bytes(self.body)
        return CallbackRequest(
            url.pbx,
            url.extension,
            url.event_type,
            self.method,
            self._content_type,
            self._query,
            body,
        )

    def _accept(self) -> None:
        size = len(self._query) + len(self.body)
        cause = self._callbacks.shares.take(self._url, size)
        if cause is not None:
            self._too_many(cause)
            return
        try:
            event = accept(self._request(), self._callbacks.settings)
        except RefusedCallback as refusal:
            self._refuse(refusal)
            return
        if log.isEnabledFor(logging.DEBUG):
            keys = {"event": event.id, "call": event.call, "tenant": event.tenant}
            log.debug("accepting", extra=keys | {"extension": event.extension})
        traces = self._callbacks.traces
        stored = self._stored if traces is None else partial(self._traced, traces, event)
        self._callbacks.commit.submit(fingerprint(event), event, stored)

    def _traced(self, traces: Traces, event: CallEvent, outcome: bool | InboxUnavailable) -> None:
        self._stored(outcome)
        if isinstance(outcome, InboxUnavailable):
            said = CallbackOutcome.UNAVAILABLE
        else:
            said = CallbackOutcome.ACCEPTED if outcome else CallbackOutcome.REPEATED
        traces.callback(event, said, time.time())

    def _stored(self, outcome: bool | InboxUnavailable) -> None:
        refusals = self._callbacks.refusals
        if isinstance(outcome, InboxUnavailable):
            refusals.note(CallbackOutcome.UNAVAILABLE)
            log.error("a callback was not accepted: %s", outcome)
            message = "The event could not be stored; it was not accepted."
            self._answer(503, error_body("inbox_unavailable", message))
        else:
            refusals.note(CallbackOutcome.ACCEPTED if outcome else CallbackOutcome.REPEATED)
            self._answer(200, ACCEPTED if outcome else REPEATED)

    def _refuse(self, refusal: RefusedCallback) -> None:
        self.busy = True
        answer = partial(self._answer, refusal.status, error_body(refusal.code, refusal.message))
        self._callbacks.refuse(self._request(), refusal, answer)

    def _too_many(self, cause: Cause) -> None:
        refusals = self._callbacks.refusals
        if cause is Cause.SOURCE_RATE:
            refusals.count(cause, self._address())
        else:
            url = self._url
            refusals.count(cause, f"{url.pbx}/{url.extension}", url.tenant.name)
        self._answer(429, TOO_MANY)

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
TOO_MANY = error_body("too_many", "There were too many of these; it was not accepted.")

# Close the connection after these instead of waiting for the rest of the request.
_CLOSING = frozenset({404, 408, 413, 429})
