"""`Http`: the handlers' client. Its errors contain no secret."""

import socket
import ssl
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offhook import PermanentError, TemporaryError
from offhook.http import Answer, Http
from tests.http_target import HttpTarget
from unifiedapi.sandbox.tls import make_certificate


async def asked(method: str, url: str, **options: Any) -> Answer:
    async with Http() as http:
        return await http.request(method, url, **options)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("https://hooks.example.com:99999/s3cret", PermanentError),
        ("https:///s3cret", PermanentError),
        ("ftp://hooks.example.com/s3cret", PermanentError),
        ("http://127.0.0.1:1/s3cret", TemporaryError),
        ("http://user:s3cret@127.0.0.1:1/", TemporaryError),
        ("http://no-such-host.invalid/s3cret", TemporaryError),
        ("http://127.0.0.1:1/s3cret\r\nX-Evil: 1", TemporaryError),
    ],
)
async def test_a_stack_trace_contains_only_the_host_of_a_url(
    url: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        await asked("POST", url, json={})
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("options", "kind", "body"),
    [
        (
            {"json": {"name": "Zoë", "n": [1, None]}},
            "application/json",
            '{"name":"Zoë","n":[1,null]}',
        ),
        ({"json": 1, "headers": {"content-type": "application/x+json"}}, "application/x+json", "1"),
        ({"data": {"a": "1 &", "b": "ö"}}, "application/x-www-form-urlencoded", "a=1+%26&b=%C3%B6"),
        ({"data": b"as it is"}, None, "as it is"),
        ({}, None, ""),
    ],
)
async def test_the_type_of_a_body_sets_its_content_type(
    target: HttpTarget, options: dict[str, Any], kind: str | None, body: str
) -> None:
    await asked("post", target.url, **options)
    (request,) = target.requests
    assert request.method == "POST"
    assert (request.headers.get("content-type"), request.body.decode()) == (kind, body)
    assert request.headers["content-length"] == str(len(request.body))
    assert request.headers["user-agent"] == "Offhook"


async def test_params_are_added_to_the_query(target: HttpTarget) -> None:
    await asked("GET", f"{target.url}/find?k=1#f", params={"phone": "+44 20", "q": "a&b"})
    assert target.requests[0].path == "/find?k=1&phone=%2B44+20&q=a%26b"


async def test_a_response_has_status_headers_and_body(target: HttpTarget) -> None:
    target.plan(201, headers={"X-Left": "3"}, body=b'{"id": "\xc3\xb6"}')
    answer = await asked("POST", target.url)
    assert (answer.status, answer.headers["x-left"], answer.json()) == (201, "3", {"id": "ö"})
    assert answer.text == '{"id": "ö"}'


def serve_once(answer: Callable[[Any], object]) -> int:
    """Serve one connection in a thread, and return the port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listening, listening.accept()[0] as connection:
            answer(connection)

    threading.Thread(target=serve, daemon=True).start()
    port: int = listening.getsockname()[1]
    return port


def hang_up(connection: Any) -> None:
    connection.recv(100_000)


def speak_smtp(connection: Any) -> None:
    connection.recv(100_000)
    connection.sendall(b"220 mail.example.com ESMTP\r\n")


@pytest.mark.parametrize(
    ("answer", "scheme", "reason"),
    [
        (hang_up, "http", r"no answer from 127\.0\.0\.1:\d+ \(it closed the connection\)"),
        (speak_smtp, "http", r"no answer from 127\.0\.0\.1:\d+ \(its response is not HTTP\)"),
        (speak_smtp, "https", r"no answer from 127\.0\.0\.1:\d+ \(TLS: WRONG_VERSION_NUMBER\)"),
    ],
)
async def test_the_reason_for_a_missing_response(
    answer: Callable[[Any], object], scheme: str, reason: str
) -> None:
    with pytest.raises(TemporaryError, match=reason):
        await asked("POST", f"{scheme}://127.0.0.1:{serve_once(answer)}/s3cret")


async def test_an_untrusted_certificate_is_an_error(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate_file, made.key_file)

    def shake_hands(connection: Any) -> None:
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(connection, server_side=True)

    with pytest.raises(TemporaryError, match="its certificate is not trusted"):
        await asked("POST", f"https://localhost:{serve_once(shake_hands)}/")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/", "connection refused"),
        ("http://no-such-host.invalid/", "its name is not known"),
    ],
)
async def test_the_reason_for_a_failed_connection(url: str, reason: str) -> None:
    with pytest.raises(TemporaryError, match=rf"no answer from \S+ \({reason}\)"):
        await asked("POST", url)


async def test_a_name_with_several_bad_addresses(names: dict[str, list[str]]) -> None:
    names["crm.example.com"] = ["127.0.0.1", "255.255.255.255"]  # nothing listens; no such host
    with pytest.raises(TemporaryError, match="none of its addresses can be connected to"):
        await asked("POST", "http://crm.example.com:1/")


async def test_a_late_response_is_an_error(target: HttpTarget) -> None:
    target.plan(200, delay=5)
    with pytest.raises(TemporaryError, match=r"127\.0\.0\.1:\d+ did not answer within 0\.1 s"):
        await asked("POST", target.url, timeout=0.1)


async def test_a_header_with_two_lines_is_refused(target: HttpTarget) -> None:
    with pytest.raises(PermanentError, match="more than one line"):
        await asked("POST", target.url, headers={"X-Name": "a\r\nX-Evil: 1"})
    assert target.requests == []
