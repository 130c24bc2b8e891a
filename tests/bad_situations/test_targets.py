"""What an integrator reads when a handler's target does not take an event."""

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from offhook import PermanentError, TemporaryError
from offhook.http import Answer, Http, check
from tests.http_target import HttpTarget
from unifiedapi.sandbox.tls import make_certificate


async def said(url: str, **options: Any) -> str:
    """Return the sentence about a delivery that fails, with HOST for the target."""
    with pytest.raises((TemporaryError, PermanentError)) as failed:
        async with Http() as http:
            check(await http.post(f"{url}/s3cret?key=s3cret", json={}, **options))
    sentence = str(failed.value)
    assert "s3cret" not in sentence
    return re.sub(r"(127\.0\.0\.1|localhost):\d{2,}", "HOST", sentence)


# Status and body of a response, and the sentence.
ANSWERS = {
    (422, b'{"error": "unknown\ncontact"}'): 'answered 422 (HOST): {"error": "unknown contact"}',
    (410, b""): "answered 410 (HOST)",
    (503, b"busy"): "answered 503 (HOST): busy",
    (401, b"bad token"): "answered 401 (HOST): bad token",
    (301, b"moved"): "answered 301 (HOST): moved",
    (400, b"no contact has +40 21 123 4567"): "answered 400 (HOST): no contact has ***",
    (403, b"token sk_live_51H8xJ2eZvKYlo2C0nVb is wrong"): (
        "answered 403 (HOST): token *** is wrong"
    ),
    (500, b"a b" * 1000): f"answered 500 (HOST): {'a b' * 66}a ...",
    (500, b"M\xfcller"): "answered 500 (HOST): M\N{REPLACEMENT CHARACTER}ller",
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_refusal_is_quoted_without_secrets(
    answer: tuple[int, bytes], target: HttpTarget
) -> None:
    target.plan(answer[0], body=answer[1])
    assert await said(target.url) == ANSWERS[answer]


def test_an_answer_made_by_a_test_has_no_host() -> None:
    with pytest.raises(PermanentError, match=r"^answered 404: no such contact$"):
        check(Answer(404, {}, b"no such contact"))


@contextmanager
def listening(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """Serve one connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])


SILENT = {
    "http://127.0.0.1:1": (
        "no answer from 127.0.0.1:1 (connection refused): "
        "start the target, or check the host and port in the handler's options"
    ),
    "http://no-such-host.invalid": (
        "no answer from no-such-host.invalid (its name is not known): "
        "check the host in the handler's options, and DNS"
    ),
    "ftp://crm.example.com": "not a URL with http or https: correct the handler's options",
}


@pytest.mark.parametrize("url", SILENT)
async def test_a_target_that_cannot_be_reached_is_named(url: str) -> None:
    assert await said(url) == SILENT[url]


async def test_a_target_that_hangs_is_named(target: HttpTarget) -> None:
    target.plan(200, delay=10)
    assert await said(target.url, timeout=0.1) == (
        "HOST did not answer within 0.1 s: it hangs, or needs a longer timeout"
    )


async def test_a_target_that_closes_the_connection_is_named(target: HttpTarget) -> None:
    target.plan(drop=True)
    assert await said(target.url) == "no answer from HOST (it closed the connection)"


async def test_a_target_without_tls_is_named() -> None:
    def speak_http(connection: socket.socket) -> None:
        connection.recv(100_000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with listening(speak_http) as port:
        assert await said(f"https://127.0.0.1:{port}") == (
            "no answer from HOST (TLS: WRONG_VERSION_NUMBER): "
            "check the port, and whether it speaks https://"
        )


async def test_a_self_signed_certificate_is_named(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate_file, made.key_file)

    def shake_hands(connection: socket.socket) -> None:
        with suppress(OSError):  # the client ends the connection
            context.wrap_socket(connection, server_side=True)

    with listening(shake_hands) as port:
        assert await said(f"https://localhost:{port}") == (
            "no answer from HOST (its certificate is not trusted): to trust your own CA, "
            "name its file in SSL_CERT_FILE in the workers' environment"
        )


async def test_a_private_target_is_named(target: HttpTarget) -> None:
    assert await said(target.url, public=True) == (
        "HOST leads to this machine or into a private network: "
        "set private_networks = true in the handler's options if that is meant"
    )
