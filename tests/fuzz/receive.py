"""The receive path: bytes on a socket become events only with a valid token.

`{dial-in}` in an input stands for the callback URL of that event type, `{old}` for one that was
made with the previous secret, `{token}` for a token alone.
"""

import asyncio
import atexit
import gc
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import uvicorn
from uvicorn.server import ServerState

from offhook.callback_url import SELF_TEST, callback_url
from offhook.dialects.telphin import TELPHIN
from offhook.errors import RefusedCallback
from offhook.event import CALLBACKS, from_stored, to_stored
from offhook.settings import Settings
from offhook.tasks import end
from receiver.app import create_app
from receiver.callback import CallbackRequest, quarantined
from receiver.request import ACCEPTED
from receiver.uvicorn_protocol import BoundedHttp
from tests.fuzz.wire import Transport, in_one_piece, loop, play

SECRET = "a secret for fuzzing, forty characters"
OLD_SECRET = "an earlier secret, also long enough here"
PBX, EXTENSION = "main", "0003*210"
_TYPES = (*(each.value for each in CALLBACKS), TELPHIN, SELF_TEST)
_URLS = {
    **{name: callback_url("", SECRET, PBX, EXTENSION, name) for name in _TYPES},
    "old": callback_url("", OLD_SECRET, PBX, EXTENSION, "hangup"),
    "unknown": callback_url("", SECRET, PBX, EXTENSION, "no-such-type"),
}
_TOKENS = {url.rpartition("/")[2].encode(): url.split("/")[4] for url in _URLS.values()}
_PLACEHOLDERS = {
    **{f"{{{name}}}".encode(): url.encode() for name, url in _URLS.items()},
    b"{token}": _URLS["dial-in"].rpartition("/")[2].encode(),
}
_PLACEHOLDER = re.compile(b"|".join(map(re.escape, _PLACEHOLDERS)))

# Otherwise the response to an input would depend on those before it.
_RATES: dict[str, Any] = {
    name: 1e9 for name in ("url_rate", "source_rate") if name in Settings.model_fields
}

# docs/troubleshooting.md explains them. The last two are refused before the URL is known.
STATUSES = {100, 200, 400, 404, 405, 408, 413, 415, 431, 503}
CODES = {
    "incomplete_body",
    "malformed_body",
    "method_not_allowed",
    "missing_call_id",
    "not_found",
    "parameter_too_long",
    "read_timeout",
    "too_large",
    "too_many_parameters",
    "unknown_event_type",
    "unsupported_media_type",
}
STATUS = re.compile(rb"HTTP/1\.1 (\d+) ")
CODE = re.compile(rb'"code":"([^"]*)"')

WORDS = (
    *_PLACEHOLDERS,
    *(b"GET ", b"POST ", b"HEAD ", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"\r\n\r\n", b"\r\n"),
    *(b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"Connection: close"),
    *(b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", b"Connection: upgrade\r\n"),
    *(b"Content-Type: application/x-www-form-urlencoded\r\n", b"multipart/form-data; boundary=b"),
    *(b"--b\r\n", b"--b--", b'Content-Disposition: form-data; name="CallID"\r\n\r\n'),
    *(b"CallID=1", b"EventType=dial-in", b"/health/live", b"/health/ready", b"/callback/", b"%2F"),
)


class Receiver:
    """The receiver's own objects, with a list instead of Redis."""

    def __init__(self) -> None:
        self.loop = loop()
        journal = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, journal)
        self.settings = Settings(  # small limits, so that small inputs reach them
            journal=Path(journal),
            secret=SECRET,  # type: ignore[arg-type]
            previous_secret=OLD_SECRET,  # type: ignore[arg-type]
            max_body=4096,
            max_parameters=20,
            max_parameter_length=300,
            **_RATES,
        )
        with self.loop.real_time():
            self.loop.run(self._build())
        self.events = 0

    async def _build(self) -> None:
        """Start the app, without what runs in the background."""
        app = create_app(self.settings)
        receiver = app.state.receiver
        receiver.store.run = self._nothing  # neither Redis nor the journal
        receiver.commit._put = self._put
        receiver.callbacks.refuse = self._refuse
        self.lifespan = app.router.lifespan_context(app)
        self.state = await self.lifespan.__aenter__()
        await end(*asyncio.all_tasks() - {asyncio.current_task()})
        gc.unfreeze()  # for other tests of this process
        self.config = uvicorn.Config(app, access_log=False, log_config=None, lifespan="off")
        self.config.load()

    async def _nothing(self) -> None:
        """Run instead of what stores events."""

    async def _put(
        self, partition: int, batch: Sequence[tuple[str, bytes]], tenants: Sequence[str]
    ) -> set[int]:
        for _, stored in batch:
            event = from_stored(stored)
            assert to_stored(event) == stored
            assert (event.pbx, event.extension) == (PBX, EXTENSION)
            types = {_TOKENS[token] for token in _TOKENS if token in self.sent}
            assert TELPHIN in types or event.type.value in types, "an event without its token"
            self.events += 1
        return set()

    def _refuse(
        self, request: CallbackRequest, refusal: RefusedCallback, then: Callable[[], None]
    ) -> None:
        assert refusal.code in CODES, refusal.code
        kept = quarantined(request, refusal, self.settings.max_body)
        assert (kept["pbx"], kept["extension"]) == (PBX, EXTENSION)
        size = sum(len(value) for value in kept.values())
        assert size < 2 * self.settings.max_body + 2000, size
        for value in kept.values():
            if isinstance(value, str):
                value.encode()
        then()

    def take(self, data: bytes) -> Counter[bytes]:
        """Play one connection, and return what the receiver wrote, with how often."""
        return self.loop.run(self._take(data))

    async def _take(self, data: bytes) -> Counter[bytes]:
        self.sent = unquote_to_bytes(data)
        self.events = 0
        server = ServerState()
        protocol = BoundedHttp(
            config=self.config, server_state=server, app_state=self.state, _loop=self.loop
        )
        transport = Transport(self.loop, protocol)
        protocol.connection_made(transport)
        await play(self.loop, protocol, transport, data)
        await self.loop.pass_hour()  # a reset leaves uvicorn's keep-alive timer
        assert not server.connections
        assert not server.tasks
        return transport.written


@cache
def receiver() -> Receiver:
    return Receiver()


def receive(data: bytes) -> None:
    """Let a connection carry the input, and check every response and event."""
    data = _PLACEHOLDER.sub(lambda found: _PLACEHOLDERS[found[0]], data)
    taking = receiver()
    written = taking.take(data)
    assert statuses(written) <= STATUSES, statuses(written)
    accepted = sum(times for each, times in written.items() if each.endswith(ACCEPTED))
    assert accepted <= taking.events
    for each in written:
        codes = {code.decode() for code in CODE.findall(each)}
        assert codes <= CODES, codes
        for secret in (SECRET.encode(), OLD_SECRET.encode(), *_TOKENS):
            assert secret not in each, "a secret in a response"
    whole = in_one_piece(data)
    if whole is not None:
        events = taking.events
        again = taking.take(whole)
        if not _closes(written) and not _closes(again):
            assert (written, events) == (again, taking.events), (written, again)


def _closes(written: Counter[bytes]) -> bool:
    return any(b"connection: close" in each for each in written)


def statuses(written: Counter[bytes]) -> set[int]:
    return {int(status) for each in written for status in STATUS.findall(each)}


def responses(data: bytes) -> dict[int, int]:
    """Return how often each status was the response to an input."""
    data = _PLACEHOLDER.sub(lambda found: _PLACEHOLDERS[found[0]], data)
    counts: dict[int, int] = {}
    for each, times in receiver().take(data).items():
        for status in STATUS.findall(each):
            counts[int(status)] = counts.get(int(status), 0) + times
    return counts
