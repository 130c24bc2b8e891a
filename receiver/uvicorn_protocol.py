"""How uvicorn runs the receiver: without secrets in its log, and with limits for each request."""

import asyncio
import re
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import unquote

import httptools
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from offhook.callback_url import PREFIX
from receiver.callback import header
from receiver.connections import Connections, Source, backlog, raise_descriptor_limit
from receiver.request import Callbacks, RequestCycle

_CALLBACKS = f"{PREFIX}/".encode()
_HEAD_WITHOUT_QUERY = 16_384  # maximum bytes of the path and all headers
_SLICE = 4096  # bytes; a usual callback has fewer
_MOST_HEADERS = 100
_MOST_PIPELINED = 8  # requests that wait for the responses to earlier ones
_NOT_ASCII = re.compile(rb"[\x80-\xff]")


def server_config(
    *,
    host: str,
    port: int,
    app: "str | Callable[[], Starlette]" = "receiver.app:create_app",
    **more: Any,
) -> uvicorn.Config:
    """Return the configuration for `uvicorn.Server`; `more` goes to `uvicorn.Config`.

    Raises this process's limit of descriptors, which its children inherit.

    Args:
        app: makes the app.
    """
    raise_descriptor_limit()
    return uvicorn.Config(
        app,
        factory=True,
        host=host,
        port=port,
        loop="uvloop",
        http=BoundedHttp,
        log_config=None,
        access_log=False,  # would contain the URL, and with it the token
        server_header=False,
        proxy_headers=False,  # see `client_address`
        ws="none",
        backlog=backlog(),
        **more,
    )


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with a timeout and a limit for the size of the headers.

    It also accepts URLs with raw non-ASCII bytes and encodes them: VoipNow's documents do not say
    that a PBX percent-encodes a caller's name.

    A callback becomes a `RequestCycle`; all other requests go to the ASGI app.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._callbacks: Callbacks = self.app_state["callbacks"]
        self._all: Connections = self.app_state["connections"]
        self._peer = ""
        self.source: Source | None = None
        self._proven = False
        self._address = self._client_address  # bound once, not for each callback
        # These stay as they are while the connection is open; its requests are judged anew.
        settings = self._callbacks.settings
        self._timeout = settings.read_timeout
        self.timeout_keep_alive = settings.idle_timeout
        self._most = settings.max_body + _HEAD_WITHOUT_QUERY
        self._in_request_line = True
        self._in_head = False
        self._in_body = False
        self._size = 0  # bytes of this request that are not its body
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None:
            self._peer = self.client[0]
        self._all.opened(self, self._peer)
        self._deadline = self.loop.call_later(self._timeout, self._time_out)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._size = 0

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # see `_ignore_upgrade`
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._stop()
        self._in_request_line = False
        self._in_head = False
        self._in_body = True
        if self.url.startswith(_CALLBACKS):
            self._begin_callback()
        else:
            super().on_headers_complete()

    def _stop(self) -> NoReturn:
        self.transport.close()
        raise ConnectionAbortedError  # stops the parser

    def on_body(self, body: bytes) -> None:
        self._size -= len(body)
        if not isinstance(self.cycle, RequestCycle):
            if self.cycle.response_complete:
                self._stop()  # or it would have to read the rest
            super().on_body(body)
        elif self.cycle.busy:  # the rest is not needed
            if not self.cycle.response_complete:
                self.flow.pause_reading()  # until the response is sent
        else:
            # uvicorn would pause reading at 64 KiB; a `RequestCycle` enforces the limit itself.
            self.cycle.body += body
            self.cycle.set()

    def on_message_complete(self) -> None:
        if self._in_head:
            return  # see `_ignore_upgrade`
        self._in_request_line = True
        self._in_body = False
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        if len(data) <= _SLICE:
            self._receive(data)
            return
        # A read may be 256 KB: stop when enough of it is bad, or others would wait for the rest.
        for start in range(0, len(data), _SLICE):
            self._receive(data[start : start + _SLICE])
            if self.transport.is_closing():
                return

    def _receive(self, data: bytes) -> None:
        if self._in_request_line:
            if not data.isascii():
                data = _with_ascii_request_line(data)
            self._in_request_line = b"\n" not in data
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            if not self.transport.is_closing():
                self.send_400_response("Invalid HTTP request received.")
            return
        if self._in_head or self._in_body:
            self._size += len(data)
            # Headers, chunk extensions, trailers.
            if self._size > self._most or len(self.headers) > _MOST_HEADERS:
                self._refuse(b"431 Request Header Fields Too Large", b"too_large")
                return
        elif not self._waits_for_a_request():
            self._forget_deadline()
            return
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._timeout, self._time_out)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse the request again without `Upgrade`, which a server may ignore (RFC 9110, 7.8).

        httptools expects no body after it, so a POST would lose its parameters.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self.send_400_response("Invalid HTTP request received.")
            return
        head = [b"%s %s HTTP/%s\r\n" % (method, self.url, version)]
        head += [b"%s: %s\r\n" % each for each in self.headers if each[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"".join([*head, b"\r\n", rest]))

    def _waits_for_a_request(self) -> bool:
        """Return whether no request has begun and uvicorn's keep-alive timeout does not run."""
        last: RequestResponseCycle | None = self.cycle
        return last is None or (last.response_complete and self.timeout_keep_alive_task is None)

    def _begin_callback(self) -> None:
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        restricted = self._callbacks.settings.allowed_addresses is not None
        if restricted and not self._callbacks.allows(self._address()):
            path = ""
        earlier: RequestResponseCycle | None = self.cycle
        cycle = RequestCycle(
            self._callbacks,
            method=self.parser.get_method().decode("ascii"),
            path=unquote(path) if "%" in path else path,
            query=url.query or b"",
            content_type=header(self.headers, b"content-type"),
            respond=self._respond,
            send_continue=self._send_continue if self.expect_100_continue else lambda: None,
            keep_alive=self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive(),
            address=self._address,
            source=self.source,
            prove=None if self._proven else self._prove,
        )
        self.cycle = cycle  # type: ignore[assignment]
        if earlier is None or earlier.response_complete:
            cycle.begin()
        else:  # as uvicorn does it: resume reading after the earlier responses
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _client_address(self) -> str:
        return self._callbacks.address(self._peer, self.headers)

    def _prove(self) -> None:
        self._proven = True
        self._all.prove(self)

    @property
    def idle(self) -> bool:
        """Whether it waits for a request."""
        last: RequestResponseCycle | None = self.cycle
        return last is None or last.response_complete

    def abort(self) -> None:
        """Close it at once."""
        self.transport.abort()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, RequestCycle):
            cycle.begin()
        else:
            super()._start_asgi_task(cycle, app)

    def _send_continue(self) -> None:
        self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _respond(self, cycle: RequestCycle, status: int, body: bytes) -> None:
        if self.transport.is_closing():
            return
        head = [STATUS_LINE[status]]
        for name, value in self.server_state.default_headers:
            head += (name, b": ", value, b"\r\n")
        head.append(b"content-length: %d\r\ncontent-type: application/json\r\n" % len(body))
        if status == 405:
            head.append(b"allow: GET, POST\r\n")
        if not cycle.keep_alive:
            head.append(b"connection: close\r\n")
        head.append(b"\r\n")
        if cycle.method != "HEAD":
            head.append(body)
        self.transport.write(b"".join(head))
        # Close clients that do not read their responses.
        if not cycle.keep_alive or self.flow.write_paused:
            self.transport.close()
        self.on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.closed(self)
        self._forget_deadline()
        super().connection_lost(exc)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_out(self) -> None:
        self._deadline = None
        if self._in_body and isinstance(self.cycle, RequestCycle):
            self.cycle.time_out()
        elif self._in_head or self._in_body:
            self._refuse(b"408 Request Timeout", b"read_timeout")
        elif not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, status: bytes, code: bytes) -> None:
        if self.transport.is_closing():
            return
        # Responses to earlier requests on the connection come first.
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


def _with_ascii_request_line(data: bytes) -> bytes:
    line, newline, rest = data.partition(b"\n")
    return _NOT_ASCII.sub(lambda found: b"%%%02X" % ord(found[0]), line) + newline + rest
