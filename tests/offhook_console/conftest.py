"""A console as its users have it: real Valkey, real calls, and a client for each role."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random

import httpx
import msgspec
import pytest
import redis as blocking
from argon2 import PasswordHasher

from offhook import EventType
from offhook.connection import opened
from offhook.dialects.voipnow import read_event
from offhook.settings import load_settings
from offhook_console.app import application
from offhook_console.passwords import make_token
from receiver.quarantine_retry import retry
from tests.conftest import Configure
from tests.events import batch_of
from tests.workers.folded import fold
from unifiedapi.sandbox.scenarios import Scenario, make_call
from unifiedapi.sandbox.scenarios import ScriptedCall as PlacedCall

ROLES = ("viewer", "agent", "supervisor", "operator")
PHONES = ("0003*210", "0003*211", "0003*212", "0003*213")
PASSWORD = "correct horse battery"
ORIGIN = "http://console.test"
SAME_ORIGIN = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}

TOKEN, TOKEN_HASH = make_token()
READ_TOKEN, READ_TOKEN_HASH = make_token()

Console = Callable[[str], httpx.AsyncClient]


@pytest.fixture(scope="module", autouse=True)
def noon() -> Iterator[None]:
    """Run in a time zone where it is about noon, so that calls of the last hours are of today."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", f"NOON{datetime.now(UTC).hour - 12:+d}")  # POSIX: hours west of UTC
        time.tzset()
        yield
    time.tzset()


@pytest.fixture(scope="session")
def password_hash() -> str:
    # Quick to check: the hash says how much work it takes.
    return PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)


def users(password_hash: str) -> str:
    """Return the tables of a user for each role; the operator has two tokens."""
    tables = [
        f'[console.users.{role}]\npassword = "{password_hash}"\nrole = "{role}"\n'
        + ('extensions = ["0003*210"]\n' if role != "viewer" else "")
        for role in ROLES
    ]
    return "".join(tables) + (
        f'[console.users.operator.tokens.all]\nhash = "{TOKEN_HASH}"\n'
        'scopes = ["calls", "numbers", "live", "dial", "deliveries", "repair", "people"]\n'
        f'[console.users.operator.tokens.reports]\nhash = "{READ_TOKEN_HASH}"\nscopes = ["calls"]\n'
    )


@pytest.fixture
def rq(redis_url: str) -> Iterator[blocking.Redis]:
    with blocking.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def console(configure: Configure, password_hash: str) -> AsyncIterator[Console]:
    """Return clients of a console with the handlers `crm` and `log`: `console("viewer")`, ..."""
    configure(
        '[handlers.crm]\nuse = "console"\n[handlers.log]\nuse = "console"\n' + users(password_hash)
    )
    async with running() as clients:
        yield clients


@asynccontextmanager
async def running(*, loaded: bool = True) -> AsyncIterator[Console]:
    """Run the configured console while in this context.

    Args:
        loaded: whether to wait until it knows the calls of the day.
    """
    app = application(load_settings(), retry)
    clients: list[httpx.AsyncClient] = []

    def client(user: str) -> httpx.AsyncClient:
        """Return a client that is signed in; with an empty name, one that is not."""
        made = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url=ORIGIN,
            headers=SAME_ORIGIN,
        )
        if user:
            made.cookies.set("offhook", app.state.parts.sessions.value(user))
        clients.append(made)
        return made

    async with app.router.lifespan_context(app):
        if loaded:
            for feed in app.state.parts.feeds.values():
                await asyncio.wait_for(feed.loaded.wait(), 30)
        yield client
        for each in clients:
            await each.aclose()


async def place(
    scenario: str,
    first: int | None = None,
    *,
    seed: int = 1,
    ago: timedelta = timedelta(minutes=5),
    tenant: str = "",
) -> PlacedCall:
    """Add a past call to the inbox, or its first callbacks, and fold it."""
    return await asyncio.to_thread(_place, scenario, first, seed, ago, tenant)


async def place_calls(*calls: tuple[PlacedCall, timedelta]) -> None:
    """Add past calls, which began so long ago, and fold them."""
    await asyncio.to_thread(_add, [(call, None, ago) for call, ago in calls], "")


def _place(scenario: str, first: int | None, seed: int, ago: timedelta, tenant: str) -> PlacedCall:
    call = make_call(Scenario(scenario), Random(seed), PHONES)
    _add([(call, first, ago)], tenant)
    return call


def _add(calls: list[tuple[PlacedCall, int | None, timedelta]], tenant: str) -> None:
    settings = load_settings()
    events = [
        read_event(
            pbx="main",
            extension=callback.extension,
            type=EventType(callback.type.label),
            parameters=dict(callback.parameters),
            received=datetime.now(UTC) - ago + timedelta(seconds=callback.at),
        )
        for call, first, ago in calls
        for callback in call.callbacks[:first]
    ]
    events = [msgspec.structs.replace(each, tenant=tenant) for each in events]

    async def add() -> None:
        async with opened(settings) as (inbox, _):
            await inbox.append(batch_of(*events), 0)

    asyncio.run(add())
    fold(settings.model_copy(update={"settle": 0.1, "settle_unanswered": 0.1, "handlers": {}}))
