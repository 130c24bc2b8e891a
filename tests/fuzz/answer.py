"""The HTTP client's responses: bytes from a hostile server become an answer or an error."""

import math
from collections.abc import Iterable
from contextlib import suppress

import h11

from offhook.errors import DeliveryError
from offhook.http import Answer, check
from offhook.http.http1 import MAX_ANSWER, BrokenOff, Room, _Connection
from tests.fuzz.wire import MARKS, Transport, in_one_piece, loop, play
from unifiedapi.retry_after import retry_after

_HEAD = b"<head>"  # at the start: the request was a HEAD
_LIMIT = 100_000  # bytes of incomplete responses

_Essence = tuple[int, set[str], bytes]
_FRAMING = {"content-length", "transfer-encoding"}  # h11 shows what it made of them

WORDS = (
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 ", b"HTTP/1.1 100 Continue\r\n\r\n", b"103", b"204"),
    *(b"304", b"101", b"503", b"Content-Length: ", b"Transfer-Encoding: ", b"chunked\r\n"),
    *(
        b"Connection: close\r\n",
        b"keep-alive",
        b"Retry-After: ",
        b"\r\n\r\n",
        b"\r\n",
        b"0\r\n\r\n",
    ),
    *(b"Fri, 31 Dec 1999 23:59:59 GMT", b"Upgrade: x\r\n", b"2\r\nok\r\n", b"2;a=b\r\n", _HEAD),
    *(b"Trailer: x\r\n", b"X: 1\r\n", b"identity", b"gzip, chunked", b'{"error":', b"+9999"),
)


def answer(data: bytes) -> None:
    """Read the input as a response, and check what comes out."""
    bodiless = data.startswith(_HEAD)
    data = data.removeprefix(_HEAD)
    outcome = loop().run(_read(data, bodiless))
    if isinstance(outcome, Answer):
        _examine(outcome)
    whole = in_one_piece(data)
    if whole is not None:
        again = loop().run(_read(whole, bodiless))
        assert outcome == again, f"in parts {outcome}, in one {again}"
    if not any(mark in data for mark in MARKS):
        reference = _h11_reads(data, bodiless)
        if isinstance(outcome, Answer) and reference is not None:
            assert _essence(outcome.status, outcome.headers, outcome.body) == reference, outcome


async def _read(data: bytes, bodiless: bool) -> Answer | str:
    """Return the response, or the error's message."""
    room = Room(_LIMIT)
    connections: set[_Connection] = set()
    connection = _Connection(loop(), connections, room)
    transport = Transport(loop(), connection)
    connection.connection_made(transport)
    response = connection.ask(b"GET / HTTP/1.1\r\n\r\n", bodiless=bodiless)
    await play(loop(), connection, transport, data)
    assert response.done(), "neither a response nor an error"
    assert not connections
    assert not room._sizes
    assert room._total == 0
    try:
        return response.result()
    except BrokenOff as error:
        return str(error)


def _examine(answer: Answer) -> None:
    assert 200 <= answer.status <= 999
    assert len(answer.body) <= MAX_ANSWER
    assert isinstance(answer.text, str)
    assert all(isinstance(value, str) for value in answer.headers.values())
    seconds = retry_after(answer.headers)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds)), seconds
    with suppress(DeliveryError):
        check(answer)
    with suppress(ValueError):
        answer.json()


def _essence(status: int, names: Iterable[str], body: bytes) -> _Essence:
    return status, {name.lower() for name in names} - _FRAMING, body


def _h11_reads(data: bytes, bodiless: bool) -> _Essence | None:
    """Return the essence of a complete response according to h11, or None."""
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    method = "HEAD" if bodiless else "GET"
    reader.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    reader.send(h11.EndOfMessage())
    response, body = None, b""
    try:
        reader.receive_data(data)
        reader.receive_data(b"")
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and response is not None:
                names = (name.decode() for name, _ in response.headers)
                return _essence(response.status_code, names, body)
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None
