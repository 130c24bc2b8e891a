"""An HTTP/1.1 client for many small requests: connections kept, one write for each request.

Our own, because deliveries and simulated PBXs depend on its speed: on one core it makes four times
as many requests as aiohttp (docs/performance.md). httptools parses responses, yarl reads URLs,
aiohappyeyeballs connects.
"""

import asyncio
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from json import loads
from typing import Any

import aiohappyeyeballs
import httptools
from multidict import CIMultiDict
from yarl import URL

MAX_ANSWER = 1_000_000  # maximum bytes of a response body
MAX_IN_PROGRESS = 32_000_000  # maximum bytes of all incomplete responses of a process
_MAX_BESIDE = 65_536  # maximum bytes beside the body: status lines, headers, chunks, trailers
_HEADER = 200  # bytes of memory that a header takes beyond its text
_CHUNK = 16  # bytes that each chunk may take beside its data
_NEXT_ADDRESS = 0.25  # seconds until the next address is tried in parallel (RFC 8305)

SocketFactory = Callable[[tuple[Any, ...]], socket.socket]


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response with its body (at most `MAX_ANSWER` bytes)."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    host: str = ""  # of the URL; set if the status is not 2xx

    @property
    def text(self) -> str:
        """The body as text; invalid UTF-8 is replaced."""
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """The body as JSON. Raises `ValueError` if it is not JSON, or was cut off."""
        try:
            return loads(self.body)
        except RecursionError:
            raise ValueError("the response is nested too deeply") from None
        except ValueError as error:
            if len(self.body) < MAX_ANSWER:
                raise
            raise ValueError(f"the response has more than {MAX_ANSWER} bytes") from error


class NotARequest(ValueError):
    """The request is malformed. The message contains no part of the URL."""


class BrokenOff(ConnectionAbortedError):
    """The connection was closed before the response was complete, or it is not HTTP."""


class Room:
    """Bounds the memory of incomplete responses: above the limit it breaks off the largest.

    So a server that sends much cannot keep out servers that send little.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._total = 0
        self._sizes: dict[_Connection, int] = {}

    def hold(self, connection: "_Connection", size: int) -> None:
        """Count the bytes that an incomplete response has now."""
        self._total += size - self._sizes.get(connection, 0)
        self._sizes[connection] = size
        while self._total > self._limit:
            largest = max(self._sizes, key=self._sizes.__getitem__)
            largest.break_off(f"incomplete responses exceed {self._limit} bytes, its most of all")

    def release(self, connection: "_Connection") -> None:
        self._total -= self._sizes.pop(connection, 0)


_room = Room(MAX_IN_PROGRESS)  # one for the process


class Client:
    """Sends each request once: no retries, no redirects, no cookies.

    There are as many connections as concurrent requests. The caller sets the timeout.

    Args:
        headers: sent with every request, unless it has its own of the same name.
        idle: seconds for which an idle connection is reused. Many servers close idle connections
            after five seconds, and a request sent at that moment is lost.
        socket_factory: makes the socket for an address of `getaddrinfo`, right before connecting,
            or raises `OSError` if connecting is not allowed.
        room: by default the process has one for all clients.
    """

    def __init__(
        self,
        headers: Mapping[str, str],
        *,
        idle: float = 4.0,
        socket_factory: SocketFactory | None = None,
        room: Room = _room,
    ) -> None:
        self._headers = {name.lower(): value for name, value in headers.items()}
        self._idle_for = idle
        self._socket_factory = socket_factory
        self._room = room
        self._connections: set[_Connection] = set()
        self._idle: dict[tuple[str, str, int], list[_Connection]] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    async def request(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Make one request and return the response, whatever its status.

        Raises:
            NotARequest: it is not an HTTP URL, or a header has more than one line.
            BrokenOff: the response was incomplete, or exceeded a limit.
            OSError: connecting failed; includes `ssl.SSLError` and `socket.gaierror`.
        """
        host, port = url.raw_host, url.port
        if url.scheme not in ("http", "https") or not host or not port:
            raise NotARequest("not a URL with http or https")
        request = self._bytes(method, url, headers or {}, body)
        loop = asyncio.get_running_loop()
        idle = self._idle.setdefault((url.scheme, host, port), [])
        connection = _usable(idle, loop.time())
        if connection is None:
            connection = await self._connect(host, port, url.scheme == "https")
        try:
            answer = await connection.ask(request, bodiless=method == "HEAD")
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            connection.idle_until = loop.time() + self._idle_for
            idle.append(connection)
            if self._sweeping is None:
                self._sweeping = loop.call_later(self._idle_for, self._sweep, loop)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            connection.close()
        self._idle.clear()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close connections that were idle for too long, even if their servers would keep them."""
        now = loop.time()
        for idle in self._idle.values():
            while idle and idle[0].idle_until <= now:  # the oldest comes first
                idle.pop(0).close()
        again = any(self._idle.values())
        self._sweeping = loop.call_later(self._idle_for, self._sweep, loop) if again else None

    def _bytes(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None
    ) -> bytes:
        lines = [f"{method} {url.raw_path_qs} HTTP/1.1"]
        names = {name.lower() for name in headers}
        if "host" not in names:
            lines.append(f"Host: {url.host_port_subcomponent}")
        lines += [f"{name}: {text}" for name, text in self._headers.items() if name not in names]
        if url.raw_user is not None and "authorization" not in names:
            said = f"{url.user}:{url.password or ''}".encode()
            lines.append(f"Authorization: Basic {b64encode(said).decode()}")
        lines += [f"{name}: {text}" for name, text in headers.items()]
        if "content-length" not in names and (body is not None or method not in _BODILESS):
            lines.append(f"Content-Length: {len(body or b'')}")
        head = "\r\n".join(lines)
        ends = len(lines) - 1
        if head.count("\r") != ends or head.count("\n") != ends:
            raise NotARequest("a header or the URL has more than one line")
        return b"%s\r\n\r\n%s" % (head.encode(errors="replace"), body or b"")

    async def _connect(self, host: str, port: int, tls: bool) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # not a valid name
            raise socket.gaierror(socket.EAI_NONAME, "no such name") from error
        try:
            connected = await aiohappyeyeballs.start_connection(
                found, happy_eyeballs_delay=_NEXT_ADDRESS, socket_factory=self._socket_factory
            )
        except RuntimeError as error:  # uvloop raises this for some errors
            raise ConnectionError(str(error)) from error
        _, connection = await loop.create_connection(
            lambda: _Connection(loop, self._connections, self._room),
            sock=connected,
            ssl=_trust() if tls else None,
            server_hostname=host.rstrip(".") if tls else None,
        )
        return connection


def _usable(idle: list["_Connection"], now: float) -> "_Connection | None":
    while idle:
        connection = idle.pop()
        if not connection.closing and now < connection.idle_until:
            return connection
        connection.close()
    return None


_BODILESS = {"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"}  # usually without a body


@cache
def _trust() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Connection(asyncio.Protocol):
    """A connection that carries one request at a time.

    Args:
        open_ones: contains the connection while it is open.

    Attributes:
        reusable: the last response was complete, and the server keeps the connection open.
        idle_until: the loop's time after which it is not reused.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, open_ones: set["_Connection"], room: Room
    ) -> None:
        self._loop = loop
        self._open_ones = open_ones
        self._room = room
        self._parser = httptools.HttpResponseParser(self)
        self._headers: CIMultiDict[str] = CIMultiDict()
        self._body = bytearray()
        self._answer: asyncio.Future[Answer] | None = None  # until the response is complete
        self._in_head = True
        self.reusable = False
        self.idle_until = 0.0

    @property
    def closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        """Close at once: pending data is of no use."""
        self._transport.abort()
        self._forget()

    def ask(self, request: bytes, *, bodiless: bool) -> asyncio.Future[Answer]:
        """Send a request. The future is the response, or raises `BrokenOff`."""
        answer = self._answer = self._loop.create_future()
        self._bodiless = bodiless
        self._in_head = True
        self._head_size = self._beside = 0
        self.reusable = False
        self._transport.write(request)
        return answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._open_ones.add(self)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():  # without a request
            self.close()
            return
        self._beside += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.break_off("its response is not HTTP")
            return
        if self._answer is None:
            return
        if self._beside > _MAX_BESIDE or self._head_size > _MAX_BESIDE:
            self.break_off("its headers, chunk sizes or trailers are too long")
        else:
            self._room.hold(self, self._head_size + self._beside + len(self._body))

    def on_message_begin(self) -> None:
        self._headers = CIMultiDict()
        self.reusable = False  # in case this is a second response

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # not a trailer
            self._headers.add(name.decode(errors="replace"), value.decode(errors="replace"))
            self._head_size += len(name) + len(value) + _HEADER

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status < 200:  # an interim response
            return
        self._in_head = False
        if self._bodiless:
            self._finish()

    def on_chunk_header(self) -> None:
        self._beside = max(0, self._beside - _CHUNK)

    def on_body(self, body: bytes) -> None:
        if self._answer is None:  # finished
            return
        self._beside = max(0, self._beside - len(body))
        self._body += body
        if len(self._body) >= MAX_ANSWER:
            self._finish()

    def on_message_complete(self) -> None:
        if self._in_head:  # an interim response, such as 100 Continue
            return
        if self._finish():
            written = not self._transport.get_write_buffer_size()
            self.reusable = written and self._parser.should_keep_alive()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and not self._in_head and self._ends_with_the_connection():
            self._finish()
        self.break_off("it closed the connection", exc)
        self._open_ones.discard(self)

    def break_off(self, reason: str, cause: Exception | None = None) -> None:
        """Close the connection. If its response is incomplete, the request fails."""
        self.close()
        if self._answer is not None and not self._answer.done():
            error = BrokenOff(reason)
            error.__cause__ = cause
            self._answer.set_exception(error)

    def _ends_with_the_connection(self) -> bool:
        return "content-length" not in self._headers and "transfer-encoding" not in self._headers

    def _finish(self) -> bool:
        answer, self._answer = self._answer, None
        if answer is None or answer.done():
            return False
        body = bytes(memoryview(self._body)[:MAX_ANSWER])
        answer.set_result(Answer(self._status, self._headers, body))
        self._forget()
        return True

    def _forget(self) -> None:
        """Keep nothing of the response: the connection may stay idle for long."""
        self._room.release(self)
        self._headers = CIMultiDict()
        self._body = bytearray()
