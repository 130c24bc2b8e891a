"""Tokens: got once for all processes, kept from other users, renewed in time and when refused."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unifiedapi.serving import Recorded, Script, Server, Told
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
    """An app before another one, which writes down the requests for tokens, and all statuses."""

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


async def ask(url: str, auth: ClientCredentials, times: int = 1) -> None:
    async with UnifiedApi(url, auth) as api:
        assert await asyncio.gather(*[presence(api) for _ in range(times)]) == [1] * times


def test_many_requests_at_once_share_one_token(log: Log, server: Server, tmp_path: Path) -> None:
    asyncio.run(ask(server.url, ClientCredentials("app", SECRET, FileTokenStore(tmp_path)), 20))
    assert log.grants == ["client_credentials"]


def test_processes_share_one_token_even_when_they_start_together(
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


def test_the_token_s_file_is_for_its_owner_only(server: Server, log: Log, tmp_path: Path) -> None:
    directory = tmp_path / "new" / "tokens"
    asyncio.run(ask(server.url, ClientCredentials("app", SECRET, FileTokenStore(directory))))
    [kept] = directory.glob("*.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    assert SECRET not in kept.read_text()
    assert "app" not in kept.name


@pytest.mark.parametrize("fault", ["others may read it", "damaged", "empty"])
def test_a_file_that_cannot_be_trusted_is_replaced(
    fault: str, server: Server, log: Log, tmp_path: Path
) -> None:
    asyncio.run(ask(server.url, ClientCredentials("app", SECRET, FileTokenStore(tmp_path))))
    [kept] = tmp_path.glob("*.json")
    if fault == "others may read it":
        kept.chmod(0o644)
    else:
        kept.write_text("" if fault == "empty" else '{"access_token": 1')
    asyncio.run(ask(server.url, ClientCredentials("app", SECRET, FileTokenStore(tmp_path))))
    assert log.grants == ["client_credentials"] * 2
    assert kept.stat().st_mode & 0o777 == 0o600


def test_without_a_place_for_files_each_process_gets_its_own(
    server: Server, log: Log, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    store = FileTokenStore(tmp_path / "file" / "no-directory")
    asyncio.run(ask(server.url, ClientCredentials("app", SECRET, store), 3))
    assert log.grants == ["client_credentials"]
    assert "cannot be kept" in caplog.text


def test_a_token_is_renewed_before_it_ends(server: Server, log: Log, pbx: Store) -> None:
    async def run() -> None:
        async with UnifiedApi(server.url, ClientCredentials("app", SECRET)) as api:
            for _ in range(4):
                assert await presence(api) == 1
                await asyncio.sleep(0.4)

    pbx.token_lifetime = 1  # renewed after half of it
    asyncio.run(run())
    assert log.grants == ["client_credentials"] * 2
    assert set(log.statuses) == {200}  # and not because it was refused


def test_a_refused_token_is_renewed_once(server: Server, log: Log, pbx: Store) -> None:
    async def run() -> None:
        async with UnifiedApi(server.url, ClientCredentials("app", SECRET)) as api:
            assert await presence(api) == 1
            pbx.revoke_tokens()
            assert await asyncio.gather(*[presence(api) for _ in range(5)]) == [1] * 5
            with pytest.raises(AccessDenied):  # for good: the next token is refused, too
                await api.request(
                    "GET", "/extensions/@me/0003*210/presence", params={"unknown": "1"}
                )

    server.app = RefuseWhen(log, "unknown=1")
    asyncio.run(run())
    assert log.grants == ["client_credentials"] * 3


@dataclass
class RefuseWhen:
    """An app that denies access to requests with this query, and passes on the others."""

    app: Any
    query: str

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        denied = scope["query_string"].decode() == self.query
        await (DENIED if denied else self.app)(scope, receive, send)


DENIED = Script(Told(401, {"error": {"code": "access_denied", "message": "No."}}))


def spoil_refresh_token(directory: Path) -> None:
    [kept] = directory.glob("*.json")
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"refresh_token": "used"}))


def test_a_token_is_refreshed_and_when_that_fails_replaced(
    server: Server, log: Log, pbx: Store, tmp_path: Path
) -> None:
    async def run() -> None:
        auth = ClientCredentials("refreshing", SECRET, FileTokenStore(tmp_path))
        async with UnifiedApi(server.url, auth) as api:
            await presence(api)
            pbx.revoke_tokens()
            await presence(api)
            spoil_refresh_token(tmp_path)
            pbx.revoke_tokens()
            await presence(api)

    asyncio.run(run())
    assert log.grants == [
        "client_credentials",
        "refresh_token",
        "refresh_token",
        "client_credentials",
    ]


@pytest.mark.parametrize(
    ("client_id", "secret", "kind", "status"),
    [
        ("app", "wrong", InvalidClient, 401),
        ("nobody", SECRET, InvalidClient, 401),
        ("untrusted", SECRET, UnauthorizedClient, 400),
    ],
)
def test_a_refused_app_is_told_why(
    client_id: str, secret: str, kind: type[OAuthError], status: int, server: Server, log: Log
) -> None:
    with pytest.raises(OAuthError) as caught:
        asyncio.run(ask(server.url, ClientCredentials(client_id, secret)))
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code) == (status, kind.codes[0])
    assert secret not in repr(caught.value)


@pytest.mark.parametrize(
    "told",
    [
        Told(200, b"access_token=secret-token"),
        Told(200, {"access_token": 5, "note": "secret-token"}),
        Told(200, {"access_token": "secret-token\r\nX: 1"}),
        Told(200, ["secret-token"]),
        Told(302, b"secret-token", {"Location": "/secret-token"}),
        Told(400, {"error": "odd", "error_description": f"for {SECRET}"}),
        Told(500, b"secret-token"),
    ],
)
def test_a_strange_answer_is_an_error_that_keeps_no_secret(told: Told, server: Server) -> None:
    server.app = Script(told)
    with pytest.raises((UnexpectedAnswer, OAuthError)) as caught:
        asyncio.run(ask_without_waiting(server.url, ClientCredentials("app", SECRET)))
    assert isinstance(caught.value, UnexpectedAnswer | ApiError)
    shown = repr(caught.value) + str(caught.value) + caught.value.body
    assert "secret-token" not in shown
    assert SECRET not in shown


async def ask_without_waiting(url: str, auth: ClientCredentials) -> None:
    async with UnifiedApi(url, auth, waits=()) as api:
        await presence(api)


def test_the_request_is_the_one_that_4psa_s_clients_make(server: Server) -> None:
    server.app = script = Script(Told(200, {"access_token": "a-token", "expires_in": "3600"}))
    with pytest.raises(UnexpectedAnswer):
        asyncio.run(ask_without_waiting(server.url, ClientCredentials("app", SECRET)))
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


def test_a_store_of_the_callers_own_is_used(server: Server, log: Log) -> None:
    class Memory:
        kept: dict[str, Token] = {}  # noqa: RUF012 - one for all
        locked = 0

        async def load(self, key: str) -> Token | None:
            return self.kept.get(key)

        async def save(self, key: str, token: Token) -> None:
            self.kept[key] = token

        @asynccontextmanager
        async def lock(self, key: str) -> AsyncIterator[None]:
            self.locked += 1
            yield

    store = Memory()
    asyncio.run(ask(server.url, ClientCredentials("app", SECRET, store)))
    asyncio.run(ask(server.url, ClientCredentials("app", SECRET, store)))
    assert log.grants == ["client_credentials"]
    assert store.locked == 2
    [token] = store.kept.values()
    assert token.access_token not in repr(token)


@pytest.mark.parametrize("token", ["", " ", "two words", "line\nbreak", "ümlaut"])
def test_a_bearer_token_that_no_header_can_hold_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        BearerToken(token)
    assert token not in str(caught.value) or not token.strip()
