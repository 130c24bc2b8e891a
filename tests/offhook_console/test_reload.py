"""Consoles apply changed users and tenants without a restart, and count attempts together."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette

from offhook.connection import connect_rq
from offhook.operations.reload import reload
from offhook.operations.running_files import CONSOLE, loaded_now
from offhook.settings import load_settings
from offhook_console.app import application
from receiver.quarantine_retry import retry
from tests.conftest import Configure
from tests.offhook.sandbox import sandbox
from tests.offhook_console.conftest import (
    ORIGIN,
    PASSWORD,
    SAME_ORIGIN,
    Console,
    place,
    running,
    users,
)

ACME = '[tenants.acme]\nextensions = ["main/0003*21?"]\n'


@asynccontextmanager
async def following() -> AsyncIterator[tuple[Starlette, Callable[[], httpx.AsyncClient]]]:
    """Run a console that takes part in reloads."""
    settings = load_settings()
    app = application(settings, retry, loaded_now(settings, program=CONSOLE))

    def client() -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=SAME_ORIGIN)

    async with app.router.lifespan_context(app):
        yield app, client


def reload_now() -> list[str]:
    said: list[str] = []
    settings = load_settings()
    with connect_rq(settings.redis_url) as redis:
        assert reload(redis, loaded_now(settings, program=CONSOLE), 60, said.append) == 1
    return said


async def sign_in(client: httpx.AsyncClient, name: str) -> int:
    answer = await client.post("/sign-in", data={"name": name, "password": PASSWORD})
    return answer.status_code


async def test_users_and_tenants_change_without_a_restart(
    configure: Configure, password_hash: str
) -> None:
    configure(users(password_hash) + ACME)
    await place("missed", tenant="acme")
    configure(users(password_hash))
    async with following() as (app, client):
        viewer = client()
        assert await sign_in(viewer, "viewer") == 303
        assert await sign_in(client(), "ann") == 401
        parts = app.state.parts
        stream = asyncio.create_task(viewer.get("/live"))
        async with asyncio.timeout(30):
            while not parts.feed.listeners.all:
                await asyncio.sleep(0.01)
        ann = f'[console.users.ann]\npassword = "{password_hash}"\nrole = "supervisor"\n'
        configure(users(password_hash).replace("users.viewer", "users.other") + ann
                  + 'tenant = "acme"\n' + ACME)  # fmt: skip
        await asyncio.to_thread(reload_now)
        assert app.state.parts is not parts
        async with asyncio.timeout(30):
            assert (await stream).status_code == 200  # it has ended; the browser comes back
        assert (await viewer.get("/now")).status_code == 303  # this user is gone
        its = client()
        assert await sign_in(its, "ann") == 303
        assert len((await its.get("/api/v1/calls")).json()["calls"]) == 1
        assert (await its.get("/api/v1/board")).json()["figures"][0]["value"] == 1


async def test_a_setup_goes_on_and_calls_stay_counted_through_a_reload(
    configure: Configure, password_hash: str
) -> None:
    with sandbox() as pbx:
        tables = f"""[pbx.main]
host = '{pbx.url}'
token = 'sandbox-token'
insecure = true
zone = "UTC"
{users(password_hash)}"""
        configure(tables)
        async with following() as (app, client):
            operator = client()
            assert await sign_in(operator, "operator") == 303
            pbx.holds = True
            given = {"extensions": "0003*210", "label": "Front"}
            assert (await operator.post("/extensions/setup", data=given)).status_code == 303
            parts = app.state.parts
            configure(tables.replace('"viewer"', '"agent"'))
            await asyncio.to_thread(reload_now)
            assert app.state.parts is not parts
            assert (await operator.get("/api/v1/extensions/run")).json()["runs"]
            pbx.holds = False
            async with asyncio.timeout(30):
                while (found := (await operator.get("/api/v1/extensions/run")).json())["runs"]:
                    await asyncio.sleep(0.05)
            assert (found["run"]["done"], found["run"]["failed"]) == (1, 0)
            assert len(pbx.types("0003*210")) == 5
            for n in range(7):
                answer = await operator.post("/api/v1/calls", json={"number": "100"})
                assert answer.status_code == (429 if n == 6 else 202)
            configure(tables)
            await asyncio.to_thread(reload_now)
            answer = await operator.post("/api/v1/calls", json={"number": "100"})
            assert answer.status_code == 429


async def test_consoles_count_attempts_together(console: Console) -> None:
    async with running() as other:
        one, two = console(""), other("")
        for n in range(6):
            client = (one, two)[n % 2]
            answer = await client.post("/sign-in", data={"name": "viewer", "password": "wrong"})
            assert answer.status_code == (429 if n == 5 else 401)
        assert await sign_in(two, "viewer") == 429
        assert await sign_in(two, "operator") == 303
