"""Responses that never end, from a real server: they fail soon, and memory stays bounded."""

import asyncio
import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread

import pytest

from offhook.errors import TemporaryError
from offhook.http import Answer, Http
from offhook.http.http1 import MAX_ANSWER, MAX_IN_PROGRESS
from tests.http_target import HttpTarget

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = CHUNKED + b"2\r\nok\r\n0\r\n"
BLOCK = 1 << 16

# How each response begins, and what follows for ever.
ENDLESS = {
    "a reason": (b"HTTP/1.1 200 ", b"x" * BLOCK),
    "the name of a header": (b"HTTP/1.1 200 OK\r\n", b"x" * BLOCK),
    "the value of a header": (b"HTTP/1.1 200 OK\r\nX: ", b"x" * BLOCK),
    "short headers": (b"HTTP/1.1 200 OK\r\n", b"a:\r\n" * (BLOCK // 4)),
    "interim responses": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1000),
    "the size of a chunk": (CHUNKED, b"0" * BLOCK),
    "the extension of a chunk": (CHUNKED + b"2;", b"x" * BLOCK),
    "extensions of small chunks": (CHUNKED, b"1;" + b"x" * 1000 + b"\r\nx\r\n"),
    "the name of a trailer": (LAST_CHUNK, b"x" * BLOCK),
    "the value of a trailer": (LAST_CHUNK + b"X: ", b"x" * BLOCK),
    "short trailers": (LAST_CHUNK, b"a:\r\n" * (BLOCK // 4)),
}


@dataclass
class Hostile:
    """A server that sends one beginning, then one block for ever or nothing more."""

    begins: bytes
    block: bytes = b""
    url: str = ""

    def serve(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # the test is over
                return
            Thread(target=self.send, args=(connection,), daemon=True).start()

    def send(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(BLOCK)
                connection.sendall(self.begins)
                while self.block:
                    connection.sendall(self.block)
                connection.recv(BLOCK)  # wait until the client closes the connection
            except OSError:
                return


@contextmanager
def hostile(begins: bytes, block: bytes = b"") -> Iterator[str]:
    """Run a hostile server, and return its URL."""
    server = Hostile(begins, block)
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listening:
        thread = Thread(target=server.serve, args=(listening,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def fault(http: Http, url: str, seconds: float = 20) -> str:
    with pytest.raises(TemporaryError) as caught:
        await http.get(url, timeout=seconds)
    return str(caught.value)


@pytest.mark.parametrize("shape", ENDLESS)
async def test_bytes_beside_the_body_have_a_limit(shape: str, memory: None) -> None:
    with hostile(*ENDLESS[shape]) as url:
        async with Http() as http:
            faults = await asyncio.gather(*(fault(http, url) for _ in range(16)))
    reason = "its headers, chunk sizes or trailers are too long"
    assert set(faults) == {f"no answer from {url.split('/')[2]} ({reason})"}
    _, peak = tracemalloc.get_traced_memory()
    assert peak < 25_000_000


async def test_a_body_in_chunks_of_one_byte_is_cut_off_like_any_other(memory: None) -> None:
    with hostile(CHUNKED, b"1\r\nx\r\n" * (BLOCK // 6)) as url:
        async with Http() as http:
            answer = await http.get(url, timeout=20)
    assert answer.body == b"x" * MAX_ANSWER
    _, peak = tracemalloc.get_traced_memory()
    assert peak < 10_000_000


async def test_incomplete_responses_have_a_limit_in_all(memory: None, target: HttpTarget) -> None:
    begins = b"HTTP/1.1 200 OK\r\nContent-Length: 990000\r\n\r\n" + b"x" * 980_000
    too_many = 100 - MAX_IN_PROGRESS // 980_000
    with hostile(begins) as url:
        async with Http() as first, Http() as second, asyncio.timeout(60):  # one limit for both
            requests = [asyncio.create_task(fault(http, url, 60)) for http in (first, second) * 50]
            while sum(request.done() for request in requests) < too_many:
                await asyncio.sleep(0.01)
            target.plan(200, body=b"honest" * 1000)
            answer = await first.get(target.url)
            failed = [request.result() for request in requests if request.done()]
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
    assert answer.body == b"honest" * 1000
    assert len(failed) == too_many
    assert all(f"exceed {MAX_IN_PROGRESS} bytes" in text for text in failed)
    _, peak = tracemalloc.get_traced_memory()
    assert peak < MAX_IN_PROGRESS * 1.5


async def test_idle_connections_keep_nothing_of_their_responses(
    memory: None, target: HttpTarget
) -> None:
    async with Http() as http:
        for _ in range(20):
            target.plan(200, body=b"x" * 900_000)
        before, _ = tracemalloc.get_traced_memory()
        await asyncio.gather(*(http.get(target.url) for _ in range(20)))
        after, _ = tracemalloc.get_traced_memory()
    assert after - before < 2_000_000


async def test_json_of_a_response_that_was_cut_off_says_so(target: HttpTarget) -> None:
    async with Http() as http:
        target.plan(200, body=b'["' + b"x" * MAX_ANSWER + b'"]')
        answer = await http.get(target.url)
    with pytest.raises(ValueError, match=f"more than {MAX_ANSWER} bytes"):
        answer.json()


def test_json_nested_too_deeply_is_not_json() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        Answer(200, {}, b"[" * 100_000).json()
