"""One request with patience: what is repeated, what is not, what is kept of a strange answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TypeVar

import pytest

from tests.unifiedapi.serving import Script, Server, Told
from unifiedapi import transport
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import (
    MAX_BODY,
    AccessDenied,
    ApiError,
    EventIdInvalid,
    EventTypeInvalid,
    InternalServerError,
    NoAnswer,
    RequestNotImplemented,
    UnexpectedAnswer,
    class_of,
)
from unifiedapi.oauth import BearerToken
from unifiedapi.resources import AgentStatus, EventType
from unifiedapi.retry_after import retry_after

R = TypeVar("R")
TOKEN = "a-secret-token"
SOON = (0.01, 0.01)
FAILED = {"error": {"code": "internal_server_error", "message": "Oh."}}


def error(code: str, message: str = "No.") -> dict[str, object]:
    return {"error": {"code": code, "message": message}}


def call(
    url: str,
    use: Callable[[UnifiedApi], Awaitable[R]],
    waits: Sequence[float] = SOON,
    timeout: float = 5,
) -> R:
    async def run() -> R:
        async with UnifiedApi(url, BearerToken(TOKEN), waits=waits, timeout=timeout) as api:
            return await use(api)

    return asyncio.run(run())


def get(api: UnifiedApi) -> Awaitable[object]:
    return api.request("GET", "/extensions/@me/1/presence/")


def update(api: UnifiedApi) -> Awaitable[object]:
    return api.queue_agents.update("0003*400", "0003*210", AgentStatus.ONLINE)


def delete(api: UnifiedApi) -> Awaitable[object]:
    return api.phone_call_events.delete("0003*210", EventType.HANGUP, "1")


def create(api: UnifiedApi) -> Awaitable[object]:
    return api.phone_call_events.create("0003*210", type=EventType.HANGUP, url="http://h")


@pytest.mark.parametrize("use", [get, update, delete])
@pytest.mark.parametrize(
    "fault",
    [Told(429), Told(500, FAILED), Told(503), Told(504, b"<html>"), Told(hang_up=True)],
    ids=["429", "500", "503", "504", "broken off"],
)
def test_what_may_be_repeated_is_repeated(
    use: Callable[[UnifiedApi], Awaitable[object]], fault: Told, server: Server
) -> None:
    server.app = script = Script(fault, fault, Told(204))
    call(server.url, use)
    assert len(script.requests) == 3


@pytest.mark.parametrize("fault", [Told(503), Told(500, FAILED), Told(hang_up=True)])
def test_a_create_that_was_sent_is_not_repeated(fault: Told, server: Server) -> None:
    server.app = script = Script(fault)
    with pytest.raises((ApiError, NoAnswer)):
        call(server.url, create)
    assert len(script.requests) == 1


def test_a_create_that_was_never_sent_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "unifiedapi")
    with pytest.raises(NoAnswer) as caught:
        call("http://127.0.0.1:9", create)
    assert not caught.value.sent
    assert len([r for r in caplog.records if r.name == "unifiedapi"]) == 2


@pytest.mark.parametrize("status", [400, 403, 404, 501])
def test_a_refusal_is_not_repeated(status: int, server: Server) -> None:
    server.app = script = Script(Told(status))
    with pytest.raises(ApiError) as caught:
        call(server.url, get)
    assert (type(caught.value), caught.value.status) == (ApiError, status)
    assert len(script.requests) == 1


def test_out_of_repeats_the_last_answer_is_the_error(server: Server) -> None:
    server.app = Script(Told(500, FAILED))
    with pytest.raises(InternalServerError) as caught:
        call(server.url, get)
    assert (caught.value.attempts, caught.value.message) == (3, "Oh.")


def test_the_pbx_says_how_long_to_wait(server: Server) -> None:
    server.app = Script(Told(429, headers={"Retry-After": "1"}), Told(204))
    began = time.monotonic()
    call(server.url, get)
    assert 1 <= time.monotonic() - began < 3


def test_who_is_told_to_wait_long_hears_so_at_once(server: Server) -> None:
    server.app = script = Script(Told(503, headers={"Retry-After": "3600"}))
    with pytest.raises(ApiError) as caught:
        call(server.url, get)
    assert caught.value.retry_after == 3600
    assert len(script.requests) == 1


def test_retry_after_is_a_number_or_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < (retry_after({"Retry-After": later}) or 0) <= 100
    assert retry_after({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    for nothing in ("", "soon", "-5", "٣"):
        assert retry_after({"Retry-After": nothing}) is None
    assert retry_after({}) is None


def test_a_slow_answer_is_none(server: Server) -> None:
    server.app = Script(Told(204, delay=1))
    began = time.monotonic()
    with pytest.raises(NoAnswer, match=r"within 0\.2 s") as caught:
        call(server.url, get, waits=(), timeout=0.2)
    assert caught.value.sent
    assert time.monotonic() - began < 0.9


def test_a_deleted_event_whose_answer_was_lost_is_deleted(server: Server) -> None:
    gone = Told(400, error("pce_id_invalid"))
    server.app = Script(Told(hang_up=True), gone)
    call(server.url, delete)
    server.app = Script(gone)
    with pytest.raises(EventIdInvalid):
        call(server.url, delete)


def test_a_redirect_is_not_followed(server: Server) -> None:
    server.app = script = Script(Told(302, headers={"Location": "/elsewhere"}))
    with pytest.raises(UnexpectedAnswer):
        call(server.url, get)
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("told", "kind", "code"),
    [
        (Told(400, error("something_new")), ApiError, "something_new"),
        (Told(400, [error("pce_type_invalid")]), EventTypeInvalid, "pce_type_invalid"),
        (Told(400, error("pcet_type_invalid")), EventTypeInvalid, "pcet_type_invalid"),
        (Told(401, error("access_denided")), AccessDenied, "access_denided"),
        (Told(501, error("request_not_implemented")), RequestNotImplemented, None),
        (Told(403, b"<html>Forbidden</html>"), ApiError, ""),
        (Told(400, {"error": None}), ApiError, ""),
        (Told(400, b"\xff\xfe"), ApiError, ""),
        (Told(400), ApiError, ""),
    ],
)
def test_an_error_is_an_exception_whatever_it_looks_like(
    told: Told, kind: type[ApiError], code: str | None, server: Server
) -> None:
    server.app = Script(told)
    with pytest.raises(ApiError) as caught:
        call(server.url, get)
    assert type(caught.value) is kind
    assert caught.value.status == told.status
    assert code is None or caught.value.code == code


def test_of_a_strange_answer_a_piece_is_kept_but_no_token(server: Server) -> None:
    body = f"<p>{TOKEN}</p>".encode() + b"x" * 10_000
    for status, kind in ((400, ApiError), (200, UnexpectedAnswer), (300, UnexpectedAnswer)):
        server.app = Script(Told(status, body))
        with pytest.raises(kind) as caught:
            call(server.url, get)
        assert isinstance(caught.value, ApiError | UnexpectedAnswer)
        assert caught.value.body.startswith("<p>***</p>x")
        assert len(caught.value.body) == MAX_BODY
        assert TOKEN not in repr(caught.value) + str(caught.value)


def test_an_answer_too_large_is_not_read_to_its_end(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_ANSWER", 1000)
    server.app = Script(Told(200, b"[" + b" " * 2000 + b"]"))
    with pytest.raises(UnexpectedAnswer, match="larger"):
        call(server.url, get)


def test_a_code_has_one_class() -> None:
    codes = [code for kind in _all(ApiError) for code in kind.codes]
    assert len(codes) == len(set(codes))
    for kind in _all(ApiError):
        for code in kind.codes:
            assert class_of(code) is kind


def _all(kind: type[ApiError]) -> list[type[ApiError]]:
    return [kind, *[k for child in kind.__subclasses__() for k in _all(child)]]
