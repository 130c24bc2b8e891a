"""How uvicorn runs the receiver: no secret in its log, and no request that never ends."""

import asyncio
import re
from typing import Any
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from offhook.callback_url import PREFIX
from offhook.settings import Settings
from receiver.callback import header
from receiver.request import Callbacks, Exchange

_CALLBACKS = f"{PREFIX}/".encode()
_BESIDE_THE_QUERY = 16_384  # bytes for the path and all headers
_NOT_ASCII = re.compile(rb"[\x80-\xff]")


def server_config(*, host: str, port: int, **more: Any) -> uvicorn.Config:
    """What to give `uvicorn.Server`; `more` are settings of `uvicorn.Config`."""
    return uvicorn.Config(
        "receiver.app:create_app",
        factory=True,
        host=host,
        port=port,
        loop="uvloop",
        http=BoundedHttp,
        log_config=None,
        access_log=False,  # it would name the URL, and with it the token
        server_header=False,
        proxy_headers=False,  # nobody asks where a request came from
        **more,
    )


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which by itself waits for ever and keeps headers of any size.

    Nor does it take a URL with bytes that should have been percent-encoded. No document says that
    a PBX encodes a caller's name, so they are encoded here.

    Callbacks become an `Exchange`, all other requests go to the ASGI app.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings: Settings = self.app_state["settings"]
        self._callbacks: Callbacks = self.app_state["callbacks"]
        self._timeout = settings.read_timeout
        self._most = settings.max_body + _BESIDE_THE_QUERY
        self._in_request_line = True
        self._in_head = False
        self._in_body = False
        self._size = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self._timeout, self._too_late)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._size = 0

    def on_headers_complete(self) -> None:
        self._in_request_line = False
        self._in_head = False
        self._in_body = True
        if self.url.startswith(_CALLBACKS) and not self.parser.should_upgrade():
            self._begin_exchange()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not isinstance(self.cycle, Exchange):
            super().on_body(body)
        elif not self.cycle.busy:
            # uvicorn would stop reading at 64 KiB, until somebody asks for what it has; an
            # `Exchange` is told of all, and refuses what is too much.
            self.cycle.body += body
            self.cycle.set()

    def on_message_complete(self) -> None:
        self._in_request_line = True
        self._in_body = False
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        if self._in_request_line:
            if not data.isascii():
                data = _with_ascii_request_line(data)
            self._in_request_line = b"\n" not in data
        super().data_received(data)
        if self._in_head:
            self._size += len(data)
            if self._size > self._most:
                self._refuse(b"431 Request Header Fields Too Large", b"too_large")
                return
        elif not self._in_body and not self._waits_for_a_request():
            self._forget_deadline()
            return
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._timeout, self._too_late)

    def _waits_for_a_request(self) -> bool:
        """Has none begun, and does uvicorn not wait for it either? Empty lines are not one."""
        last: RequestResponseCycle | None = self.cycle
        return last is None or (last.response_complete and self.timeout_keep_alive_task is None)

    def _begin_exchange(self) -> None:
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        earlier: RequestResponseCycle | None = self.cycle
        exchange = Exchange(
            self._callbacks,
            method=self.parser.get_method().decode("ascii"),
            path=unquote(path) if "%" in path else path,
            query=url.query or b"",
            content_type=header(self.headers, b"content-type"),
            answer=self._answer,
            go_on=self._go_on if self.expect_100_continue else _already,
            keep_alive=self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive(),
        )
        self.cycle = exchange  # type: ignore[assignment]
        if earlier is None or earlier.response_complete:
            exchange.begin()
        else:  # as uvicorn does it: read on when those before are answered
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, Exchange):
            cycle.begin()
        else:
            super()._start_asgi_task(cycle, app)

    def _go_on(self) -> None:
        self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self, exchange: Exchange, status: int, body: bytes) -> None:
        head = [STATUS_LINE[status]]
        for name, value in self.server_state.default_headers:
            head += (name, b": ", value, b"\r\n")
        head.append(b"content-length: %d\r\ncontent-type: application/json\r\n" % len(body))
        if status == 405:
            head.append(b"allow: GET, POST\r\n")
        if not exchange.keep_alive:
            head.append(b"connection: close\r\n")
        head.append(b"\r\n")
        if exchange.method != "HEAD":
            head.append(body)
        self.transport.write(b"".join(head))
        # Nobody gets another answer who does not read those that he has.
        if not exchange.keep_alive or self.flow.write_paused:
            self.transport.close()
        self.on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self._in_body and isinstance(self.cycle, Exchange):
            self.cycle.too_late()
        elif self._in_head or self._in_body:
            self._refuse(b"408 Request Timeout", b"read_timeout")
        elif not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, status: bytes, code: bytes) -> None:
        if self.transport.is_closing():
            return
        # Whoever is asked for an answer before this one must give it first.
        last: RequestResponseCycle | None = self.cycle
        if self._in_body:
            free = not self.pipeline and not self.cycle.response_started
        else:
            free = last is None or last.response_complete
        if free:
            body = b'{"error":{"code":"%s","message":"%s"}}' % (code, status[4:])
            self.transport.write(
                b"HTTP/1.1 %s\r\ncontent-length: %d\r\ncontent-type: application/json\r\n"
                b"connection: close\r\n\r\n%s" % (status, len(body), body)
            )
        self.transport.close()


def _already() -> None:
    """The client sends the body without being asked."""


def _with_ascii_request_line(data: bytes) -> bytes:
    line, newline, rest = data.partition(b"\n")
    return _NOT_ASCII.sub(lambda found: b"%%%02X" % ord(found[0]), line) + newline + rest
