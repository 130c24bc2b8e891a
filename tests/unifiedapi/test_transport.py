"""Requests: what is retried, what is not, and what errors keep of a response."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.unifiedapi.serving import Reply, Script, Server
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import (
    MAX_BODY,
    AccessDenied,
    ApiError,
    EventIdInvalid,
    EventTypeInvalid,
    InternalServerError,
    NoAnswer,
    OAuthError,
    RequestNotImplemented,
    UnexpectedAnswer,
    class_of,
)
from unifiedapi.oauth import BearerToken
from unifiedapi.resources import AgentStatus, EventType
from unifiedapi.retry_after import retry_after
from unifiedapi.transport import Transport

TOKEN = BearerToken("a-secret-token")
SOON = (0.01, 0.01)
FAILED = {"error": {"code": "internal_server_error", "message": "Oh."}}
CLOSED = Reply(hang_up=True)


@pytest.fixture
async def api(server: Server) -> AsyncIterator[UnifiedApi]:
    """A client that retries twice."""
    async with UnifiedApi(server.url, TOKEN, waits=SOON) as api:
        yield api


def error(code: str, message: str = "No.") -> dict[str, object]:
    return {"error": {"code": code, "message": message}}


Use = Callable[[UnifiedApi], Awaitable[object]]


def get(api: UnifiedApi) -> Awaitable[object]:
    return api.request("GET", "/extensions/@me/1/presence/")


def update(api: UnifiedApi) -> Awaitable[object]:
    return api.queue_agents.update("0003*400", "0003*210", AgentStatus.ONLINE)


def delete(api: UnifiedApi) -> Awaitable[object]:
    return api.phone_call_events.delete("0003*210", EventType.HANGUP, "1")


def create(api: UnifiedApi) -> Awaitable[object]:
    return api.phone_call_events.create("0003*210", type=EventType.HANGUP, url="http://h")


@pytest.mark.parametrize("use", [get, update, delete])
async def test_idempotent_request_is_retried(use: Use, server: Server, api: UnifiedApi) -> None:
    for fault in (Reply(429), Reply(500, FAILED), Reply(503), Reply(504, b"<html>"), CLOSED):
        server.app = script = Script(fault, fault, Reply(204))
        await use(api)
        assert len(script.requests) == 3


async def test_create_that_was_sent_is_not_retried(server: Server, api: UnifiedApi) -> None:
    for fault in (Reply(503), Reply(500, FAILED), CLOSED):
        server.app = script = Script(fault)
        with pytest.raises((ApiError, NoAnswer)):
            await create(api)
        assert len(script.requests) == 1


async def test_create_that_was_never_sent_is_retried(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "unifiedapi")
    async with UnifiedApi("http://127.0.0.1:9", TOKEN, waits=SOON) as api:
        with pytest.raises(NoAnswer) as caught:
            await create(api)
    assert not caught.value.sent
    assert len([r for r in caplog.records if r.name == "unifiedapi"]) == 2


async def test_refused_request_is_not_retried(server: Server, api: UnifiedApi) -> None:
    for status in (400, 403, 404, 501):
        server.app = script = Script(Reply(status))
        with pytest.raises(ApiError) as caught:
            await get(api)
        assert (type(caught.value), caught.value.status) == (ApiError, status)
        assert len(script.requests) == 1


async def test_last_response_is_the_error_after_all_retries(
    server: Server, api: UnifiedApi
) -> None:
    server.app = Script(Reply(500, FAILED))
    with pytest.raises(InternalServerError) as caught:
        await get(api)
    assert (caught.value.attempts, caught.value.message) == (3, "Oh.")


async def test_retry_after_decides_the_wait(server: Server, api: UnifiedApi) -> None:
    server.app = Script(Reply(429, headers={"Retry-After": "1"}), Reply(204))
    began = time.monotonic()
    await get(api)
    assert 1 <= time.monotonic() - began < 30


async def test_long_retry_after_is_an_error_at_once(server: Server, api: UnifiedApi) -> None:
    server.app = script = Script(Reply(503, headers={"Retry-After": "3600"}))
    with pytest.raises(ApiError) as caught:
        await get(api)
    assert caught.value.retry_after == 3600
    assert len(script.requests) == 1


def test_retry_after_is_a_number_or_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < (retry_after({"Retry-After": later}) or 0) <= 100
    assert retry_after({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    for invalid in ("", "soon", "-5", "٣"):
        assert retry_after({"Retry-After": invalid}) is None
    assert retry_after({}) is None


async def test_slow_response_times_out(server: Server) -> None:
    server.app = Script(Reply(204, delay=5))
    async with UnifiedApi(server.url, TOKEN, waits=(), timeout=1) as api:
        with pytest.raises(NoAnswer, match="within 1 s") as caught:
            await get(api)
    assert caught.value.sent


async def test_event_is_deleted_even_if_the_first_response_was_lost(
    server: Server, api: UnifiedApi
) -> None:
    gone = Reply(400, error("pce_id_invalid"))
    server.app = Script(CLOSED, gone)
    await delete(api)
    server.app = Script(gone)
    with pytest.raises(EventIdInvalid):
        await delete(api)


async def test_redirect_is_not_followed(server: Server, api: UnifiedApi) -> None:
    server.app = script = Script(Reply(302, headers={"Location": "/elsewhere"}))
    with pytest.raises(UnexpectedAnswer):
        await get(api)
    assert len(script.requests) == 1


async def test_error_response_in_any_form_is_an_api_error(server: Server, api: UnifiedApi) -> None:
    cases: list[tuple[Reply, type[ApiError], str]] = [
        (Reply(400, error("something_new")), ApiError, "something_new"),
        (Reply(400, [error("pce_type_invalid")]), EventTypeInvalid, "pce_type_invalid"),
        (Reply(400, error("pcet_type_invalid")), EventTypeInvalid, "pcet_type_invalid"),
        (Reply(401, error("access_denided")), AccessDenied, "access_denided"),
        (
            Reply(501, error("request_not_implemented")),
            RequestNotImplemented,
            "request_not_implemented",
        ),
        (Reply(403, b"<html>Forbidden</html>"), ApiError, ""),
        (Reply(400, {"error": None}), ApiError, ""),
        (Reply(400, b"\xff\xfe"), ApiError, ""),
        (Reply(400, b"[" * 100_000), ApiError, ""),
        (Reply(400), ApiError, ""),
    ]
    for reply, kind, code in cases:
        server.app = Script(reply)
        with pytest.raises(ApiError) as caught:
            await get(api)
        assert type(caught.value) is kind
        assert (caught.value.status, caught.value.code) == (reply.status, code)


async def test_error_keeps_the_start_of_the_response_without_the_token(
    server: Server, api: UnifiedApi
) -> None:
    body = b"<p>a-secret-token</p>" + b"x" * 10_000
    for status, kind in ((400, ApiError), (200, UnexpectedAnswer), (300, UnexpectedAnswer)):
        server.app = Script(Reply(status, body))
        with pytest.raises(kind) as caught:
            await get(api)
        assert isinstance(caught.value, ApiError | UnexpectedAnswer)
        assert caught.value.body.startswith("<p>***</p>x")
        assert len(caught.value.body) == MAX_BODY
        assert "a-secret-token" not in repr(caught.value) + str(caught.value)


async def test_too_large_response_is_an_error(server: Server) -> None:
    server.app = Script(Reply(200, b"[" + b" " * 2000 + b"]"))
    transport = Transport(server.url, max_response=1000)
    with pytest.raises(UnexpectedAnswer, match="larger than 1000 bytes"):
        await transport.request("GET", "/", idempotent=True)
    await transport.close()


def test_each_code_has_one_class() -> None:
    codes = [code for kind in _all(ApiError) for code in kind.codes]
    assert len(codes) == len(set(codes))
    for kind in _all(ApiError):
        for code in kind.codes:
            assert class_of(code) is kind
    assert class_of("user_invalid", OAuthError) is OAuthError


def _all(kind: type[ApiError]) -> list[type[ApiError]]:
    return [kind, *[k for child in kind.__subclasses__() for k in _all(child)]]
