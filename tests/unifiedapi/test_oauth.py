"""Tokens: shared between processes, hidden from other users, renewed early and when refused."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unifiedapi.serving import Recorded, Reply, Script, Server
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import (
    AccessDenied,
    ApiError,
    InvalidClient,
    InvalidRequest,
    OAuthError,
    UnauthorizedClient,
    UnexpectedAnswer,
)
from unifiedapi.oauth import BearerToken, ClientCredentials, FileTokenStore, Token
from unifiedapi.sandbox.server import create_sandbox
from unifiedapi.sandbox.store import App, Contents, Extension, Store, User

SECRET = "the-secret~-_of the & app"


@pytest.fixture
def pbx() -> Store:
    return Store(
        Contents(
            users=[User(12, "0003")],
            extensions=[Extension("0003*210", 12)],
            apps=[
                App("app", SECRET, 12),
                App("refreshing", SECRET, 12, refresh=True),
                App("untrusted", SECRET, 12, trusted=False),
            ],
        )
    )


@dataclass
class Log:
    """Middleware that records the token requests, and all statuses."""

    app: Any
    grants: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> Any:
            message = await receive()
            if scope["path"] == "/oauth/token.php" and message.get("body"):
                request = Recorded("", "", [], {}, message["body"])
                self.grants.append(request.form["grant_type"])
            return message

        async def speak(message: Any) -> None:
            if "status" in message:
                self.statuses.append(message["status"])
            await send(message)

        await self.app(scope, listen, speak)


@pytest.fixture
def log(pbx: Store, server: Server) -> Log:
    server.app = log = Log(create_sandbox(pbx))
    return log


async def presence(api: UnifiedApi) -> int:
    return len([entry async for entry in api.presence.list()])


def kept_in(directory: Path) -> Path:
    """Return the only token file."""
    [kept] = directory.glob("*.json")
    return kept


async def ask(url: str, auth: ClientCredentials, times: int = 1) -> None:
    async with UnifiedApi(url, auth) as api:
        assert await asyncio.gather(*[presence(api) for _ in range(times)]) == [1] * times


async def test_concurrent_requests_share_a_token(log: Log, server: Server, tmp_path: Path) -> None:
    await ask(server.url, ClientCredentials("app", SECRET, FileTokenStore(tmp_path)), 20)
    assert log.grants == ["client_credentials"]


def test_processes_that_start_together_share_a_token(
    log: Log, server: Server, tmp_path: Path
) -> None:
    program = """
import asyncio, sys
from unifiedapi.client import UnifiedApi
from unifiedapi.oauth import ClientCredentials, FileTokenStore
async def main():
    auth = ClientCredentials("app", sys.argv[2], FileTokenStore(sys.argv[3]))
    async with UnifiedApi(sys.argv[1], auth) as api:
        assert [e.extension async for e in api.presence.list()] == ["0003*210"]
asyncio.run(main())
"""
    command = [sys.executable, "-c", program, server.url, SECRET, str(tmp_path)]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(30) for process in running] == [0, 0, 0, 0]
    assert log.grants == ["client_credentials"]


async def test_only_the_owner_can_read_the_token_file(
    server: Server, log: Log, tmp_path: Path
) -> None:
    directory = tmp_path / "new" / "tokens"
    await ask(server.url, ClientCredentials("app", SECRET, FileTokenStore(directory)))
    kept = kept_in(directory)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    assert SECRET not in kept.read_text()
    assert "app" not in kept.name


async def test_unsafe_or_damaged_token_file_is_replaced(
    server: Server, log: Log, tmp_path: Path
) -> None:
    faults: list[Callable[[Path], object]] = [
        lambda kept: kept.chmod(0o644),
        lambda kept: kept.write_text('{"access_token": 1'),
        lambda kept: kept.write_text(""),
    ]
    await ask(server.url, ClientCredentials("app", SECRET, FileTokenStore(tmp_path)))
    kept = kept_in(tmp_path)
    for number, spoil in enumerate(faults, 2):
        spoil(kept)
        await ask(server.url, ClientCredentials("app", SECRET, FileTokenStore(tmp_path)))
        assert log.grants == ["client_credentials"] * number
        assert kept.stat().st_mode & 0o777 == 0o600


async def test_process_without_a_writable_directory_gets_its_own_token(
    server: Server, log: Log, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    store = FileTokenStore(tmp_path / "file" / "no-directory")
    await ask(server.url, ClientCredentials("app", SECRET, store), 3)
    assert log.grants == ["client_credentials"]
    assert "cannot save the token" in caplog.text


async def test_token_is_renewed_before_it_expires(
    server: Server, log: Log, pbx: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    for module in ("unifiedapi.oauth", "unifiedapi.sandbox.store"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(time=lambda: now))
    pbx.token_lifetime = 4  # renewed after half of it
    async with UnifiedApi(server.url, ClientCredentials("app", SECRET)) as api:
        for grants in ([], ["client_credentials"]):
            assert log.grants == grants
            if grants:
                now += 2.1
            for _ in range(2):
                assert await presence(api) == 1
    assert log.grants == ["client_credentials"] * 2
    assert set(log.statuses) == {200}  # so it was not refused


async def test_refused_token_is_renewed_once(server: Server, log: Log, pbx: Store) -> None:
    server.app = RefuseWhen(log, "unknown=1")
    async with UnifiedApi(server.url, ClientCredentials("app", SECRET)) as api:
        assert await presence(api) == 1
        pbx.revoke_tokens()
        assert await asyncio.gather(*[presence(api) for _ in range(5)]) == [1] * 5
        with pytest.raises(AccessDenied):  # the next token is refused too
            await api.request("GET", "/extensions/@me/0003*210/presence", params={"unknown": "1"})
    assert log.grants == ["client_credentials"] * 3


@dataclass
class RefuseWhen:
    """Middleware that denies access to requests with this query."""

    app: Any
    query: str

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        denied = scope["query_string"].decode() == self.query
        await (DENIED if denied else self.app)(scope, receive, send)


DENIED = Script(Reply(401, {"error": {"code": "access_denied", "message": "No."}}))


async def test_token_is_refreshed_or_else_replaced(
    server: Server, log: Log, pbx: Store, tmp_path: Path
) -> None:
    auth = ClientCredentials("refreshing", SECRET, FileTokenStore(tmp_path))
    async with UnifiedApi(server.url, auth) as api:
        await presence(api)
        pbx.revoke_tokens()
        await presence(api)
        kept = kept_in(tmp_path)
        kept.write_text(json.dumps(json.loads(kept.read_text()) | {"refresh_token": "used"}))
        pbx.revoke_tokens()
        await presence(api)
    assert log.grants == [
        "client_credentials",
        "refresh_token",
        "refresh_token",
        "client_credentials",
    ]


async def test_refused_app_gets_the_reason(server: Server, log: Log) -> None:
    cases: list[tuple[str, str, type[OAuthError], int]] = [
        ("app", "wrong", InvalidClient, 401),
        ("unknown", SECRET, InvalidClient, 401),
        ("untrusted", SECRET, UnauthorizedClient, 400),
    ]
    for client_id, secret, kind, status in cases:
        with pytest.raises(OAuthError) as caught:
            await ask(server.url, ClientCredentials(client_id, secret))
        assert type(caught.value) is kind
        assert (caught.value.status, caught.value.code) == (status, kind.codes[0])
        assert secret not in repr(caught.value)


async def test_error_of_an_invalid_token_response_has_no_secret(server: Server) -> None:
    for reply in (
        Reply(200, b"access_token=secret-token"),
        Reply(200, {"access_token": 5, "note": "secret-token"}),
        Reply(200, {"access_token": "secret-token\r\nX: 1"}),
        Reply(200, ["secret-token"]),
        Reply(302, b"secret-token", {"Location": "/secret-token"}),
        Reply(400, {"error": "odd", "error_description": f"for {SECRET}"}),
        Reply(500, b"secret-token"),
    ):
        server.app = Script(reply)
        with pytest.raises((UnexpectedAnswer, OAuthError)) as caught:
            await ask_without_retries(server.url, ClientCredentials("app", SECRET))
        assert isinstance(caught.value, UnexpectedAnswer | ApiError)
        shown = repr(caught.value) + str(caught.value) + caught.value.body
        assert "secret-token" not in shown
        assert SECRET not in shown


async def ask_without_retries(url: str, auth: ClientCredentials) -> None:
    async with UnifiedApi(url, auth, waits=()) as api:
        await presence(api)


async def test_token_request_is_the_same_as_from_4psas_clients(server: Server) -> None:
    server.app = script = Script(Reply(200, {"access_token": "a-token", "expires_in": "3600"}))
    with pytest.raises(UnexpectedAnswer):
        await ask_without_retries(server.url, ClientCredentials("app", SECRET))
    request = script.requests[0]
    assert (request.method, request.path) == ("POST", "/oauth/token.php")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.form == {
        "grant_type": "client_credentials",
        "client_id": "app",
        "client_secret": SECRET,
        "type": "unifiedapi",
        "redirect_uri": f"{server.url}/oauth/token.php",
    }
    assert script.requests[1].headers["authorization"] == "Bearer a-token"


async def test_custom_token_store_is_used(server: Server, log: Log) -> None:
    class MemoryStore:
        kept: dict[str, Token] = {}  # noqa: RUF012 - shared
        locked = 0

        async def load(self, key: str) -> Token | None:
            return self.kept.get(key)

        async def save(self, key: str, token: Token) -> None:
            self.kept[key] = token

        @asynccontextmanager
        async def lock(self, key: str) -> AsyncIterator[None]:
            self.locked += 1
            yield

    store = MemoryStore()
    await ask(server.url, ClientCredentials("app", SECRET, store))
    await ask(server.url, ClientCredentials("app", SECRET, store))
    assert log.grants == ["client_credentials"]
    assert store.locked == 2
    [token] = store.kept.values()
    assert token.access_token not in repr(token)


def test_bearer_token_must_fit_in_a_header() -> None:
    for token in ("", " ", "two words", "line\nbreak", "ümlaut"):
        with pytest.raises(InvalidRequest) as caught:
            BearerToken(token)
        assert token not in str(caught.value) or not token.strip()
