"""`/live` as server-sent events and as a WebSocket: who gets what, and after a break."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from offhook_console.passwords import make_token
from tests.conftest import Configure
from tests.offhook_console.conftest import (
    ORIGIN,
    READ_TOKEN,
    ROLES,
    TOKEN,
    Console,
    place,
    running,
    users,
)
from tests.offhook_console.sockets import connected

POP_TOKEN, POP_HASH = make_token()
POP = f'[console.users.agent.tokens.pop]\nhash = "{POP_HASH}"\nscopes = ["live", "numbers"]\n'
OWN = "0003*210"
SEED = 8  # rings at that phone


def app_of(client: httpx.AsyncClient) -> Starlette:
    app: Starlette = client._transport.app  # type: ignore[attr-defined]
    return app


async def test_each_role_opens_a_socket_with_a_cookie_of_this_site(console: Console) -> None:
    for role in ROLES:
        client = console(role)
        cookie = f"offhook={client.cookies['offhook']}"
        for origin, opened in ((ORIGIN, True), ("http://evil.test", False), (None, False)):
            headers = {"Host": "console.test", "Cookie": cookie}
            headers |= {"Origin": origin} if origin else {}
            async with connected(app_of(client), headers) as (_, first):
                assert (first["type"] == "websocket.accept") is opened, (role, origin)


async def test_a_stream_ends_when_its_person_signs_out(console: Console) -> None:
    agent, headers = console("agent"), {"Host": "console.test", "Origin": ORIGIN}
    headers["Cookie"] = f"offhook={agent.cookies['offhook']}"
    async with connected(app_of(agent), headers) as (socket, _):
        await socket.json()
        assert (await console("viewer").post("/sign-out")).status_code == 303
        assert socket.sent.empty()
        assert (await agent.post("/sign-out")).status_code == 303
        async with asyncio.timeout(30):
            assert (await socket.sent.get())["type"] == "websocket.close"


async def test_a_stream_lasts_no_longer_than_its_session(console: Console) -> None:
    agent = console("agent")
    parts = app_of(agent).state.parts
    request = HTTPConnection(
        {
            "type": "http",
            "scheme": "http",
            "headers": [(b"cookie", f"offhook={agent.cookies['offhook']}".encode())],
            "path": "/live",
            "server": ("console.test", 80),
        }
    )
    person = parts.sessions.person(request)
    lasts = parts.settings.console.session_hours * 3600
    assert 0 < (person.until - datetime.now(UTC)).total_seconds() <= lasts
    soon = replace(person, until=datetime.now(UTC) + timedelta(seconds=0.1))
    with parts.streams.listening(soon, parts.feed.listening(person.view)) as listener:
        async with asyncio.timeout(30):
            while await listener.batch():
                pass
    assert listener not in parts.feed.listeners.all


@pytest.mark.parametrize(
    ("subprotocols", "opened"),
    [
        (("offhook", TOKEN), True),
        (("offhook", READ_TOKEN), False),  # without the scope
        (("offhook", "ofh_wrong"), False),
        (("offhook",), False),
        ((TOKEN,), False),
        ((), False),
    ],
)
async def test_a_token_opens_a_socket_from_any_site(
    console: Console, subprotocols: tuple[str, ...], opened: bool
) -> None:
    headers = {"Origin": "http://crm.test", "Host": "console.test"}
    async with connected(app_of(console("")), headers, subprotocols) as (_, first):
        assert (first["type"] == "websocket.accept") is opened
        if opened:
            assert first["subprotocol"] == "offhook"


async def test_a_program_gets_the_pops_of_its_users_phones_alone(
    configure: Configure, password_hash: str
) -> None:
    configure(users(password_hash) + POP)
    async with running() as console:
        client = console("")
        subprotocols = ("offhook", POP_TOKEN)
        async with connected(app_of(client), {}, subprotocols) as (socket, first):
            assert first["type"] == "websocket.accept"
            position = await socket.json()
            assert position.keys() == {"id"}
            await app_of(client).state.parts.feed.listeners.ping()  # which is of event streams
            other = await place("missed", 1, seed=3, ago=timedelta(seconds=3))
            mine = await place("missed", 1, seed=SEED, ago=timedelta(seconds=2))
            assert mine.callbacks[0].extension == OWN != other.callbacks[0].extension
            ringing = (await socket.json())["pop"]
            assert (ringing["call"], ringing["state"]) == (f"main/{mine.id}", "ringing")
            assert ringing["number"] == mine.callbacks[0].parameters["CallerIDNum"]
        query = f"last-event-id={position['id']}"
        async with connected(app_of(client), {}, subprotocols, query) as (socket, _):
            assert (await socket.json())["pop"] == ringing  # again: it was not read after that id


async def test_a_browser_gets_pops_among_what_its_pages_show(
    configure: Configure, password_hash: str
) -> None:
    configure(users(password_hash))
    async with running() as console:
        mine = await place("missed", 1, seed=SEED, ago=timedelta(seconds=2))
        async with running() as again:
            events = await first_events(again("agent"), 4)
        assert [name for name, _ in events] == ["pop", "", "fragments", "changed"]
        pop = json.loads(events[0][1])
        assert (pop["call"], pop["extension"]) == (f"main/{mine.id}", OWN)
        async with running() as again:
            viewer = await first_events(again("viewer"), 3)
        assert [name for name, _ in viewer] == ["", "fragments", "changed"]
        del console


async def first_events(client: httpx.AsyncClient, count: int) -> list[tuple[str, str]]:
    """The first server-sent events of a client: their names and data."""
    app, got = app_of(client), asyncio.Queue[Any]()
    disconnect = asyncio.Event()

    async def receive() -> Any:
        await disconnect.wait()
        return {"type": "http.disconnect"}

    cookie = f"offhook={client.cookies['offhook']}".encode()
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/live",
        "raw_path": b"/live",
        "query_string": b"",
        "scheme": "http",
        "headers": [(b"host", b"console.test"), (b"cookie", cookie)],
        "server": ("console.test", 80),
        "client": ("127.0.0.1", 1),
    }
    reading = asyncio.ensure_future(app(scope, receive, got.put))
    text = ""
    async with asyncio.timeout(30):
        while text.count("\r\n\r\n") < count:
            message = await got.get()
            text += message.get("body", b"").decode()
    disconnect.set()
    await asyncio.wait([reading])
    events = []
    for block in text.split("\r\n\r\n")[:count]:
        fields = dict(line.split(": ", 1) for line in block.split("\r\n") if ": " in line)
        events.append((fields.get("event", ""), fields.get("data", "")))
    return events
