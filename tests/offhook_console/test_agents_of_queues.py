"""The agents of queues: as the PBX says, asked seldom, and with an access that shows no others."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest
import redis as blocking

from offhook import ExtensionSettings
from offhook.call import Kind
from offhook.inbox import keys
from tests.conftest import Configure
from tests.offhook.sandbox import Sandbox, sandbox
from tests.offhook_console.conftest import Console, place, running, users
from tests.workers.serving.bench import until
from unifiedapi.resources import AgentStatus
from unifiedapi.sandbox.store import Agent

QUEUE = "0003*400"
ACCESS = '[pbx.main]\nhost = "{url}"\ntoken = "sandbox-token"\ninsecure = true\nzone = "UTC"\n'


@pytest.fixture
async def pbx(rq: blocking.Redis) -> AsyncIterator[Sandbox]:
    with sandbox() as made:
        made.store.extensions[QUEUE].agents = [
            Agent("0003*210", AgentStatus.ONLINE),
            Agent("0003*211", AgentStatus.PAUSED),
            Agent("+447700900123", AgentStatus.LOGGED_OUT, "1"),
        ]
        for extension, label, kind in (
            (QUEUE, "Sales", Kind.QUEUE),
            ("0003*210", "Jane", Kind.PHONE),
            ("0003*211", "Tom", Kind.PHONE),
        ):
            settings = msgspec.json.encode(ExtensionSettings(label=label, kind=kind))
            rq.hset(keys.EXTENSIONS, f"main/{extension}", settings)
        yield made


async def agents_on(console: Console, user: str, path: str = "/now") -> str:
    """Return the words of the queue's panel once the agents are known."""
    for _ in range(200):
        found = (await console(user).get(path)).text
        if "paused" in found:
            break
        await asyncio.sleep(0.05)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found))


async def test_queues_have_their_agents(
    configure: Configure, password_hash: str, pbx: Sandbox
) -> None:
    configure(ACCESS.format(url=pbx.url) + users(password_hash))
    await place("missed", ago=timedelta(minutes=30))
    async with running() as console:
        page = await agents_on(console, "supervisor")
        assert "Jane · free" in page
        assert "Tom · paused" in page
        assert "+44 7700 900123 · logged out" in page or "+447700900123 · logged out" in page
        masked = await agents_on(console, "viewer")
        assert "900123" not in masked.replace(" ", "")
        wall = await agents_on(console, "supervisor", "/wall")
        assert "1 of 3 free" in wall
        asked = [path for _, path in pbx.requests if "agents" in path]
        assert len(asked) == 1  # for all who looked


async def test_a_tenant_without_an_access_of_its_own_sees_no_agents(
    configure: Configure, password_hash: str, pbx: Sandbox
) -> None:
    ann = f'[console.users.ann]\npassword = "{password_hash}"\nrole = "supervisor"\n'
    ann += 'tenant = "acme"\n[tenants.acme]\nextensions = ["main/0003**"]\n'
    configure(ACCESS.format(url=pbx.url) + users(password_hash) + ann)
    await place("missed", tenant="acme", ago=timedelta(minutes=30))
    async with running() as console:
        page = (await console("ann").get("/now")).text
        assert "Sales" in page
        parts = console("ann")._transport.app.state.parts  # type: ignore[attr-defined]
        known = parts.agents._known["acme"]
        await until(lambda: known.asking.done())
        assert known.agents == {}
        assert not any("agents" in path for _, path in pbx.requests)


@pytest.mark.usefixtures("quick_retries")
async def test_a_pbx_that_is_down_leaves_the_page_as_it_was(
    configure: Configure, password_hash: str, pbx: Sandbox
) -> None:
    configure(ACCESS.format(url="http://127.0.0.1:1") + users(password_hash))
    await place("missed", ago=timedelta(minutes=30))
    async with running() as console:
        assert (await console("viewer").get("/now")).status_code == 200
        parts = console("viewer")._transport.app.state.parts  # type: ignore[attr-defined]
        await until(lambda: parts.agents._known[""].asking.done())
        assert "no caller waits" in (await console("viewer").get("/now")).text
