"""`Client` against servers that send the bytes a test wants, on both event loops."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import aiohappyeyeballs
import httpx
import pytest
import uvloop
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from offhook.http import http1
from offhook.http.http1 import MAX_ANSWER, BrokenOff, Client, NotARequest
from unifiedapi.sandbox.tls import make_certificate

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Wire:
    """A server that sends one response after the other, then `OK`.

    Attributes:
        answers: bytes to send; those of a tuple one by one, each a moment later.
        closes: number of responses after which it closes a connection.
        patient: wait for the body before responding.
        requests: head and body of each request.
        connections: number of connections so far.
    """

    answers: list[bytes | tuple[bytes, ...]] = field(default_factory=list)
    closes: int = 1000
    patient: bool = True
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    port: int = 0

    @property
    def url(self) -> URL:
        return URL(f"http://127.0.0.1:{self.port}/hook?k=1")

    def answer(self, head: bytes) -> bytes | tuple[bytes, ...]:
        return self.answers.pop(0) if self.answers else OK

    async def has_open(self, number: int) -> None:
        """Wait until this many connections are open: it sees late that one is closed."""
        async with asyncio.timeout(30):
            while self.open != number:
                await asyncio.sleep(0.001)
        # The client learns of it when the loop looks at its sockets, be it after a pause.
        for _ in range(10):
            await asyncio.sleep(0.001)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            for _ in range(self.closes):
                head = await reader.readuntil(b"\r\n\r\n")
                size = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                body = await reader.readexactly(int(size or 0)) if self.patient else b""
                self.requests.append(head + body)
                answer = self.answer(head)
                for part in answer if isinstance(answer, tuple) else (answer,):
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.002)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def serving(told: Wire, tls: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    server = await asyncio.start_server(told.serve, "127.0.0.1", 0, ssl=tls)
    told.port = server.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        server.close()
        async with asyncio.timeout(30):
            while told.open:
                await asyncio.sleep(0.001)


def wire(
    *answers: bytes | tuple[bytes, ...], closes: int = 1000, tls: ssl.SSLContext | None = None
) -> AbstractAsyncContextManager[Wire]:
    return serving(Wire(list(answers), closes), tls)


@asynccontextmanager
async def client(**options: float) -> AsyncIterator[Client]:
    """A client for half a minute."""
    made = Client({"User-Agent": "test"}, **options)  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(30):
            yield made
    finally:
        made.close()


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    """A server's context for `localhost`, trusted while `SSL_CERT_FILE` is set."""
    made = make_certificate(tmp_path, "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate_file, made.key_file)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.ca_file))
    http1._trust.cache_clear()
    yield context
    http1._trust.cache_clear()


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4\r\nfirs\r\nD;size=13\r\nt and second.\r\n0\r\nX-Trailer: 1\r\n\r\n"
)
ANSWERS = {
    "a length": (OK, 200, b"ok"),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "no body, with a length": (
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        304,
        b"",
    ),
    "chunks": (CHUNKED, 200, b"first and second."),
    "until its end": (b"HTTP/1.1 200 OK\r\n\r\nas long as it lasts", 200, b"as long as it lasts"),
    "of HTTP/1.0": (b"HTTP/1.0 404 Not Found\r\nContent-Length: 4\r\n\r\nnone", 404, b"none"),
    "after 100": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok"),
    "after hints": (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK, 200, b"ok"),
    "no reason": (b"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n", 599, b""),
}


def parts_of(data: bytes, cuts: list[int]) -> tuple[bytes, ...]:
    """The data, cut at these places."""
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    return tuple(data[a:b] for a, b in pairwise(places))


@pytest.mark.parametrize("name", ANSWERS)
@settings(deadline=None, max_examples=25)
@given(cuts=st.lists(st.integers(0, 200), max_size=6))
@example(cuts=list(range(200)))
def test_a_response_may_arrive_in_any_parts(name: str, cuts: list[int]) -> None:
    data, status, body = ANSWERS[name]

    async def story() -> None:
        async with wire(parts_of(data, cuts), closes=1) as server, client() as http:
            answer = await http.request("POST", server.url, body=b"x")
            assert (answer.status, answer.body) == (status, body)
            assert "X-Trailer" not in answer.headers
            assert len(server.requests) == 1

    uvloop.run(story())


@pytest.mark.parametrize("name", ANSWERS)
async def test_httpx_reads_the_same(name: str) -> None:
    data, status, body = ANSWERS[name]

    async with wire(data, closes=1) as server, httpx.AsyncClient() as reference:
        read = await reference.post(str(server.url), content=b"x")
        assert (read.status_code, read.content) == (status, body)


async def expect_broken_off(answering: AbstractAsyncContextManager[Wire], reason: str) -> None:
    async with answering as server, client() as http:
        with pytest.raises(BrokenOff, match=reason):
            await http.request("GET", server.url)


async def test_an_incomplete_response_is_an_error() -> None:
    for data in (
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
        CHUNKED[:-30],
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ):
        await expect_broken_off(wire(data, closes=1), "it closed the connection")


async def test_a_response_that_is_not_http_is_an_error() -> None:
    for data in (
        b"220 mail.example.com ESMTP\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n\x00\x01",
    ):
        await expect_broken_off(wire(data), "not HTTP")


async def test_endless_headers_are_an_error() -> None:
    endless = (b"HTTP/1.1 200 OK\r\n", *[b"X-Filler: " + b"x" * 1000 + b"\r\n"] * 100)
    await expect_broken_off(wire(endless), "too long")


async def test_only_the_beginning_of_a_large_body_is_kept() -> None:
    size = MAX_ANSWER * 3
    large = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (size, b"x" * size)

    async with wire(large) as server, client() as http:
        answer = await http.request("GET", server.url)
        assert (answer.status, answer.body) == (200, b"x" * MAX_ANSWER)
        assert (await http.request("GET", server.url)).body == b"ok"
        assert server.connections == 2  # the rest was not read


async def test_a_connection_is_reused() -> None:
    async with wire(OK, CHUNKED, ANSWERS["no body"][0], OK) as server, client() as http:
        for _ in range(4):
            await http.request("POST", server.url, body=b"{}")
        assert server.connections == 1


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), "the server closes it"),
        (OK.replace(b"/1.1", b"/1.0"), "HTTP/1.0 has no second request"),
        (OK + OK, "a second response would be read as the next one"),
        (OK + b"garbage", "garbage after the response"),
        ((OK, b"HTTP/1.1 200 OK\r\n"), "a response without a request"),
    ],
)
async def test_a_connection_is_not_reused_after_a_faulty_response(
    first: bytes | tuple[bytes, ...], why: str
) -> None:
    async with wire(first, ANSWERS["no body"][0]) as server, client() as http:
        assert (await http.request("POST", server.url)).body == b"ok"
        await server.has_open(0)
        assert (await http.request("POST", server.url)).status == 204, why
        assert server.connections == 2
        await server.has_open(1)


async def test_a_connection_closed_by_the_server_is_not_reused() -> None:
    async with wire(closes=1) as server, client() as http:
        for _ in range(3):
            assert (await http.request("POST", server.url)).status == 200
            await server.has_open(0)
        assert server.connections == 3


async def test_a_connection_idle_for_too_long_is_not_reused() -> None:
    async with wire() as server, client(idle=1) as http:
        await http.request("POST", server.url)
        await asyncio.sleep(1.1)
        await http.request("POST", server.url)
        assert server.connections == 2


async def test_connections_idle_for_too_long_are_closed() -> None:
    async with wire() as server, client(idle=1) as http:
        await asyncio.gather(*(http.request("POST", server.url) for _ in range(10)))
        assert server.connections == 10
        await server.has_open(0)  # without another request


async def test_a_request_to_a_closing_server_is_not_retried() -> None:
    async with wire(OK, b"", closes=2) as server, client() as http:
        await http.request("POST", server.url)
        with pytest.raises(BrokenOff):
            await http.request("POST", server.url)
        assert (len(server.requests), server.connections) == (2, 1)


async def test_a_cancelled_request_closes_its_connection() -> None:
    async with wire(b"", ANSWERS["no body"][0]) as server, client() as http:
        request = asyncio.create_task(http.request("POST", server.url))
        while not server.requests:
            await asyncio.sleep(0.001)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert (await http.request("POST", server.url)).status == 204
        assert server.connections == 2
        await server.has_open(1)


async def test_a_server_that_closes_at_once_is_an_error() -> None:
    async with wire(closes=0) as server, client() as http:

        async def ask() -> None:
            with pytest.raises((BrokenOff, ConnectionResetError)):
                await http.request("POST", server.url)

        await asyncio.gather(*(ask() for _ in range(100)))


async def test_concurrent_requests_get_their_own_responses() -> None:
    class Echo(Wire):
        def answer(self, head: bytes) -> tuple[bytes, ...]:
            path = head.split()[1]
            return b"HTTP/1.1 200 OK\r\n", b"Content-Length: %d\r\n\r\n%s" % (len(path), path)

    async with serving(Echo()) as server, client() as http:

        async def ask(number: int) -> None:
            for again in range(20):
                url = server.url.with_path(f"/{number}/{again}")
                assert (await http.request("GET", url)).text == url.path

        await asyncio.gather(*(ask(number) for number in range(30)))
        assert server.connections == 30


async def test_the_bytes_of_a_request() -> None:
    async with wire() as server, client() as http:
        headers = {"Content-Type": "text/plain", "X-Name": "Zoë"}
        await http.request("POST", server.url, headers=headers, body=b"\r\n\r\n")
        await http.request("GET", server.url, headers={"user-agent": "mine", "HOST": "other"})
        await http.request("PUT", server.url)
        await http.request("GET", URL(f"http://m%C3%BCller:p%3Ass@127.0.0.1:{server.port}"))
    host = f"Host: 127.0.0.1:{server.port}\r\n".encode()
    assert server.requests == [
        b"POST /hook?k=1 HTTP/1.1\r\n" + host + b"user-agent: test\r\n"
        b"Content-Type: text/plain\r\nX-Name: Zo\xc3\xab\r\nContent-Length: 4\r\n\r\n\r\n\r\n",
        b"GET /hook?k=1 HTTP/1.1\r\nuser-agent: mine\r\nHOST: other\r\n\r\n",
        b"PUT /hook?k=1 HTTP/1.1\r\n" + host + b"user-agent: test\r\nContent-Length: 0\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"user-agent: test\r\n"
        b"Authorization: Basic bcO8bGxlcjpwOnNz\r\n\r\n",
    ]


async def test_line_breaks_cannot_be_smuggled_in() -> None:
    async with wire() as server, client() as http:
        for line_break in ("\r\n", "\n", "\r"):
            evil = f"a{line_break}X-Evil: 1"
            path = server.url.with_path(f"/{evil}", encoded=True)
            for method, url, headers in (
                (evil, server.url, {}),
                ("POST", path, {}),
                ("POST", server.url, {evil: "1"}),
                ("POST", server.url, {"X-Name": evil}),
            ):
                with pytest.raises(NotARequest, match="more than one line"):
                    await http.request(method, url, headers=headers)
        assert server.connections == 0


async def test_other_urls_are_refused() -> None:
    async with client() as http:
        for url in ("ftp://127.0.0.1/", "/only/a/path", "https:///x", "mailto:a@b.c"):
            with pytest.raises(NotARequest, match="not a URL with http or https"):
                await http.request("GET", URL(url))


async def test_a_response_to_head_has_no_body() -> None:
    async with wire(OK[:-2]) as server, client() as http:
        answer = await http.request("HEAD", server.url)
        assert (answer.status, answer.headers["content-length"], answer.body) == (200, "2", b"")


async def test_a_response_before_the_body_is_sent_counts() -> None:
    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n"

    async with serving(Wire([refusal], patient=False)) as server, client() as http:
        body = bytes(20_000_000)
        assert (await http.request("POST", server.url, body=body)).status == 413
        await http.request("POST", server.url)
        assert server.connections == 2  # the rest of the body is still on the first


async def test_headers_ignore_case_and_may_repeat() -> None:
    data = b"HTTP/1.1 200 OK\r\nRETRY-after: 7\r\nX-A: 1\r\nX-a: \xff\r\nContent-Length: 0\r\n\r\n"

    async with wire(data) as server, client() as http:
        headers = (await http.request("GET", server.url)).headers
        assert headers["Retry-After"] == "7"
        assert [value for name, value in headers.items() if name.lower() == "x-a"] == ["1", "�"]


async def test_a_compressed_response_stays_compressed() -> None:
    """`offhook.http` sends `Accept-Encoding: identity`."""
    packed = gzip.compress(b"{}")
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)

    async with wire(head + packed) as server, client() as http:
        assert (await http.request("GET", server.url)).body == packed


asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # `names` patches its loop


@asyncio_only
async def test_one_of_two_addresses_of_a_name_may_be_dead(names: dict[str, list[str]]) -> None:
    names["crm.example.com"] = ["127.0.0.2", "127.0.0.1"]  # nothing listens on the first

    async with wire() as server, client() as http:
        answer = await http.request("GET", URL(f"http://crm.example.com:{server.port}/"))
        assert answer.body == b"ok"


@asyncio_only
async def test_a_name_may_end_with_a_dot(tls: ssl.SSLContext, names: dict[str, list[str]]) -> None:
    names["localhost."] = ["127.0.0.1"]

    async with wire(tls=tls) as server, client() as http:
        answer = await http.request("GET", URL(f"https://localhost.:{server.port}/"))
        assert answer.body == b"ok"


async def test_a_runtime_error_of_uvloop_is_a_connection_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """According to aiohappyeyeballs, uvloop raises RuntimeError for some errors."""

    async def start_connection(*_: object, **__: object) -> None:
        raise RuntimeError("unable to perform operation, the handler is closed")

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", start_connection)

    async with client() as http:
        with pytest.raises(ConnectionError, match="the handler is closed"):
            await http.request("GET", URL("http://127.0.0.1:1/"))


async def test_an_unknown_host_name() -> None:
    async with client() as http:
        for name in ("no-such-host.invalid", "a..b", "x" * 64 + ".example.com"):
            with pytest.raises(socket.gaierror):
                await http.request("GET", URL(f"http://{name}/"))


async def test_tls(tls: ssl.SSLContext) -> None:
    async with wire(CHUNKED, tls=tls) as server, client() as http:
        url = URL(f"https://localhost:{server.port}/")
        assert (await http.request("POST", url, body=b"{}")).body == b"first and second."
        assert (await http.request("POST", url, body=b"{}")).body == b"ok"
        assert server.connections == 1


async def test_a_certificate_for_another_name_is_not_trusted(tls: ssl.SSLContext) -> None:
    async with wire(tls=tls) as server, client() as http:
        with pytest.raises(ssl.SSLCertVerificationError):
            await http.request("GET", URL(f"https://127.0.0.1:{server.port}/"))
        assert server.requests == []


async def test_a_certificate_of_an_unknown_authority_is_not_trusted(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")

    async with wire(tls=tls) as server, client() as http:
        with pytest.raises(ssl.SSLCertVerificationError):
            await http.request("GET", URL(f"https://localhost:{server.port}/"))
        assert server.requests == []


async def test_closing_leaves_no_connection(tls: ssl.SSLContext) -> None:
    """Otherwise the interpreter warns about each, and warnings are errors here."""
    async with wire() as plain, wire(tls=tls) as safe:
        http = Client({})
        urls = [plain.url, URL(f"https://localhost:{safe.port}/")] * 5
        await asyncio.gather(*(http.request("GET", url) for url in urls))
        assert (plain.open, safe.open) == (5, 5)
        http.close()
        for server in (plain, safe):
            await server.has_open(0)
