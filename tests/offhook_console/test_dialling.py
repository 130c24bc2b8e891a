"""Click-to-dial: the own phone first, from own extensions, a few a minute, noted in the log."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import httpx
import pytest

from tests.conftest import Configure
from tests.offhook.sandbox import Sandbox, sandbox
from tests.offhook_console.conftest import TOKEN, Console, place, running, users
from tests.ports import free_port
from unifiedapi.sandbox.store import OrderedCall

API = "/api/v1/calls"


@pytest.fixture
def pbx() -> Iterator[Sandbox]:
    with sandbox() as running_pbx:
        yield running_pbx


@pytest.fixture
def ordered(pbx: Sandbox) -> list[OrderedCall]:
    made: list[OrderedCall] = []
    pbx.store.placing = made.append
    return made


@pytest.fixture
async def console(configure: Configure, password_hash: str, pbx: Sandbox) -> AsyncIterator[Console]:
    configure(
        f"[pbx.main]\nhost = '{pbx.url}'\ntoken = 'sandbox-token'\ninsecure = true\nzone = 'UTC'\n"
        + users(password_hash)
    )
    async with running() as clients:
        yield clients


async def test_a_call_is_made_from_the_own_phone_and_noted(
    console: Console, ordered: list[OrderedCall]
) -> None:
    page = (await console("agent").get("/dial?number=tel:%2B44-20-7946-0100")).text
    assert "Call +44 20 7946 0100" in page
    assert ordered == []  # a link makes no call
    answer = await console("agent").post("/dial", data={"number": "+44 20 7946-0100"})
    assert answer.headers["location"] == "/dial?called=yes"
    answer = await console("supervisor").post(API, json={"number": "0003*211"})
    assert answer.status_code == 202
    calls = [(each.source, each.destination) for each in ordered]
    assert calls == [("0003*210", "+442079460100"), ("0003*210", "0003*211")]
    assert answer.json() == {"id": ordered[1].id}
    said = (await console("operator").get("/api/v1/audit")).json()["entries"]
    assert [each["did"] for each in said] == ["made a call from 0003*210"] * 2
    assert [each["by"] for each in said] == ["supervisor", "agent"]
    token = {"Authorization": f"Bearer {TOKEN}"}
    answer = await console("").post(API, json={"number": "100"}, headers=token)
    assert answer.status_code == 202


async def test_what_may_not_be_called_is_refused(
    console: Console, ordered: list[OrderedCall]
) -> None:
    for number in ("", "+", "1", "a", "12;DROP", "+44x", "x" * 100, "٣٤٥", "**21*1#"):
        answer = await console("agent").post(API, json={"number": number})
        assert answer.status_code == 400, number
        assert (await console("agent").post("/dial", data={"number": number})).status_code == 400
    other = {"number": "100", "extension": "0003*211"}
    assert (await console("agent").post(API, json=other)).status_code == 403
    assert (await console("viewer").post(API, json={"number": "100"})).status_code == 403
    assert ordered == []


async def test_calls_are_limited(console: Console, ordered: list[OrderedCall]) -> None:
    client = console("agent")
    statuses = [(await client.post(API, json={"number": "100"})).status_code for _ in range(8)]
    assert statuses == [202] * 6 + [429] * 2
    assert len(ordered) == 6
    assert (await console("operator").post(API, json={"number": "100"})).status_code == 202


async def test_two_people_do_not_call_the_same_missed_caller(
    console: Console, ordered: list[OrderedCall]
) -> None:
    missed = await place("missed", seed=8, ago=timedelta(hours=1))
    number = missed.callbacks[0].parameters["CallerIDNum"]
    async with running() as again:
        agent, operator = again("agent"), again("operator")
        data = {"missed": f"main/{missed.id}", "next": "/missed?state=open"}
        assert "Call back" in (await agent.get("/missed")).text
        answer = await agent.post("/dial", data=data)
        assert (answer.status_code, answer.headers["location"]) == (303, "/missed?state=open")
        assert [each.destination for each in ordered] == [number]
        assert "your phone rings" in (await agent.get("/missed")).text
        assert "agent is calling" in (await operator.get("/missed")).text
        [listed] = (await operator.get("/api/v1/missed")).json()["missed"]
        assert listed["calling"] == "agent"
        for made in (
            await operator.post("/dial", data=data),
            await operator.post(API, json={"number": number}),
        ):
            assert made.status_code == 409
            assert "agent is calling this number" in made.text
        assert len(ordered) == 1
        gone = await operator.post("/dial", data={"missed": "main/none"})
        assert gone.status_code == 404


async def test_a_refusal_of_the_pbx_is_told_and_leaves_nothing(
    console: Console, pbx: Sandbox, ordered: list[OrderedCall]
) -> None:
    missed = await place("missed", seed=8, ago=timedelta(hours=1))
    del pbx.store.extensions["0003*210"]
    async with running() as again:
        data = {"missed": f"main/{missed.id}"}
        answer = await again("agent").post("/dial", data=data)
        assert answer.status_code == 502
        assert "Nothing was called: the PBX refuses" in answer.text
        assert "Call back" in (await again("agent").get("/missed")).text
        assert (await again("operator").get("/api/v1/audit")).json()["entries"] == []
    assert ordered == []


async def test_a_call_that_may_have_been_made_is_noted_and_not_made_again(
    configure: Configure, password_hash: str
) -> None:
    asked: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    port = free_port()
    configure(
        f"[pbx.main]\nhost = 'http://127.0.0.1:{port}'\ntoken = 'x'\nzone = 'UTC'\n"
        + users(password_hash)
    )
    async with (
        await asyncio.start_server(hang_up, "127.0.0.1", port),
        running() as console,
    ):
        client, key = console("supervisor"), {"Idempotency-Key": "k"}
        for _ in range(2):
            answer = await client.post(API, json={"number": "100"}, headers=key)
            assert (answer.status_code, answer.json()["detail"]) == (
                502,
                "The PBX did not answer. Your phone may ring anyway.",
            )
            assert answer.headers["content-type"] == "application/problem+json"
        said = (await console("operator").get("/api/v1/audit")).json()["entries"]
    assert len(asked) == len(said) == 1


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ("", "No PBX is known to have 0003*210"),
        ("[pbx.main]\n", "This console cannot make calls"),
        ("[pbx.main]\n[pbx.other]\n", "No PBX is known to have 0003*210"),
    ],
)
async def test_a_console_without_the_pbxs_api_says_so(
    configure: Configure, password_hash: str, tables: str, why: str
) -> None:
    configure(tables + users(password_hash))
    async with running() as console:
        answer = await console("agent").post(API, json={"number": "100"})
        assert answer.status_code == 409
        assert why in answer.json()["detail"]


async def test_someone_without_a_phone_is_told_what_to_do(
    configure: Configure, password_hash: str
) -> None:
    tables = re.sub(r'(role = "operator"\n)extensions = .*\n', r"\1", users(password_hash))
    configure(tables)
    async with running() as console:
        client: httpx.AsyncClient = console("operator")
        for path in ("/dial", "/me"):
            assert "You have no phone of your own" in (await client.get(path)).text
        assert "Your phone:" not in (await client.get("/missed")).text
        assert (await client.post(API, json={"number": "100"})).status_code == 403
