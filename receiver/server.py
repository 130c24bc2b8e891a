"""How uvicorn runs the receiver: no secret in its log, and no request that never ends."""

import asyncio
import re
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from offhook.settings import Settings

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
        **more,
    )


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which by itself waits for ever and keeps headers of any size.

    Nor does it take a URL with bytes that should have been percent-encoded. No document says that
    a PBX encodes a caller's name, so they are encoded here.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings: Settings = self.app_state["settings"]
        self._timeout = settings.read_timeout
        self._most = settings.max_body + _BESIDE_THE_QUERY
        self._in_request_line = True
        self._in_head = False
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
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_request_line = True
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        if self._in_request_line:
            if not data.isascii():
                data = _with_ascii_request_line(data)
            self._in_request_line = b"\n" not in data
        super().data_received(data)
        if not self._in_head:
            self._forget_deadline()
            return
        self._size += len(data)
        if self._size > self._most:
            self._refuse(b"431 Request Header Fields Too Large", b"too_large")
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._timeout, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self._in_head:
            self._refuse(b"408 Request Timeout", b"read_timeout")
        elif not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, status: bytes, code: bytes) -> None:
        if self.transport.is_closing():
            return
        earlier: RequestResponseCycle | None = self.cycle
        if earlier is None or earlier.response_complete:  # otherwise the next answer is not ours
            body = b'{"error":{"code":"%s","message":"%s"}}' % (code, status[4:])
            self.transport.write(
                b"HTTP/1.1 %s\r\ncontent-length: %d\r\ncontent-type: application/json\r\n"
                b"connection: close\r\n\r\n%s" % (status, len(body), body)
            )
        self.transport.close()


def _with_ascii_request_line(data: bytes) -> bytes:
    line, newline, rest = data.partition(b"\n")
    return _NOT_ASCII.sub(lambda found: b"%%%02X" % ord(found[0]), line) + newline + rest
