"""Callbacks and other requests share a connection, and their responses come in order."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from offhook.event import from_stored
from tests.receiver.running import RunningReceiver, post_head, read_answer, running_receiver, url

FORM = b"CallID=%d&CallStatus=CALLING"


@pytest.fixture
def receiver(redis_url: str, tmp_path: Path) -> Iterator[RunningReceiver]:
    with running_receiver(redis_url, tmp_path) as running:
        yield running


def post(number: int, path: str | None = None, *more: bytes) -> bytes:
    """Return a callback on a keep-alive connection."""
    body = FORM % number
    lines = [
        b"POST %s HTTP/1.1" % (path or url()).encode(),
        b"Host: pbx.test",
        b"Content-Length: %d" % len(body),
        *more,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(path: str, *more: bytes) -> bytes:
    return b"\r\n".join([b"GET %s HTTP/1.1" % path.encode(), b"Host: pbx.test", *more, b"", b""])


def calls(redis_url: str) -> list[str]:
    with redis.Redis.from_url(redis_url) as client:
        found: list[tuple[bytes, dict[bytes, bytes]]] = client.xrange("offhook:{0}:inbox")
    return [from_stored(fields[b"e"]).call_id for _, fields in found]


def test_pipelined_requests_are_answered_in_order(
    receiver: RunningReceiver, redis_url: str
) -> None:
    sent = [post(1), get("/health/live"), post(1), get(f"{url()}?no=call"), post(2)]
    with receiver.connect() as connection:
        connection.sendall(b"".join([*sent, get("/health/live", b"Connection: close")]))
        answers = read_answer(connection).raw
    words = [b"accepted", b"live", b"repeated", b"missing_call_id", b"accepted", b"live"]
    places = []
    place = 0
    for word in words:
        place = answers.index(b'"%s"' % word, place) + 1
        places.append(place)
    assert places == sorted(places)
    assert answers.count(b"HTTP/1.1 ") == len(words)
    assert calls(redis_url) == ["1", "2"]


def test_requests_after_an_invalid_url_are_not_read(
    receiver: RunningReceiver, redis_url: str
) -> None:
    with receiver.connect() as connection:
        connection.sendall(post(1) + post(2, url(secret="x" * 40)) + post(3))
        answers = read_answer(connection).raw
    assert answers.count(b"HTTP/1.1 ") == 2
    assert calls(redis_url) == ["1"]


def test_expect_100_continue_is_supported(receiver: RunningReceiver) -> None:
    head = post_head(url(), 8).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    with receiver.connect() as connection:
        connection.sendall(head)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"CallID=1")
        assert read_answer(connection).json == {"status": "accepted"}


def test_head_request_gets_no_body(receiver: RunningReceiver) -> None:
    answer = receiver.get(url(), method="HEAD")
    assert (answer.status, answer.body) == (405, b"")


def test_slow_pipelined_body_is_refused(redis_url: str, tmp_path: Path) -> None:
    with (
        running_receiver(redis_url, tmp_path, read_timeout=4) as receiver,
        receiver.connect() as connection,
    ):
        connection.sendall(post(1) + post(2)[:-5])
        answers = read_answer(connection).raw
    assert b'"accepted"' in answers
    assert answers.index(b"read_timeout") > answers.index(b"accepted")
    assert calls(redis_url) == ["1"]


def test_connection_is_reused_for_callbacks(receiver: RunningReceiver, redis_url: str) -> None:
    with receiver.connect() as connection:
        for number in range(5):
            connection.sendall(post(number))
            answer = connection.recv(4096)
            assert answer.endswith(b'{"status":"accepted"}')
            assert b"connection: close" not in answer
    assert calls(redis_url) == ["0", "1", "2", "3", "4"]
