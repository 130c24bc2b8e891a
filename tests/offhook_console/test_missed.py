"""Missed callers: the page, the API and the command show the same, each person their own."""

import asyncio
import json
import re
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

from offhook.connection import opened
from offhook.inbox import call_index
from offhook.inbox.call_store import Calls
from offhook.inbox.missed_calls import MissedCalls
from offhook.settings import load_settings
from offhook_cli import app
from tests.conftest import Configure
from tests.offhook_console.conftest import PHONES, Console, place, place_calls, running, users
from unifiedapi.callback import CallStatus
from unifiedapi.sandbox.scenarios import (
    Scenario,
    ScriptedCall,
    from_outside,
    make_call,
    to_outside,
)

MISSED = "/api/v1/missed"


def number_of(call: ScriptedCall) -> str:
    return call.callbacks[0].parameters["CallerIDNum"]


def missed_call(seed: int) -> ScriptedCall:
    """A missed call whose number is not withheld."""
    made = make_call(Scenario.MISSED, Random(seed), PHONES)
    assert number_of(made)[-1].isdigit()
    return made


def called_back(missed: ScriptedCall, by: str = "0003*213") -> ScriptedCall:
    """A call to the number of the missed one, which is answered."""
    id_ = f"{missed.id}-back"
    leg = to_outside(by, number_of(missed), {"CallID": id_})
    callbacks = (leg.dial(0), leg.answer(4), leg.hang_up(64, CallStatus.ANSWER))
    return ScriptedCall(id_, Scenario.OUTGOING, callbacks)


async def command(*options: str) -> str:
    """What `offhook missed` prints."""
    runner, arguments = CliRunner(), ["missed", *options]
    result = await asyncio.to_thread(runner.invoke, app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.stdout


async def listed(console: Console, role: str = "operator", **query: str) -> list[dict[str, Any]]:
    answer = await console(role).get(MISSED, params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["missed"]
    return found


def first_ids(callers: list[dict[str, Any]]) -> list[str]:
    return [caller["calls"][0]["id"] for caller in callers]


async def test_a_missed_caller_is_listed_until_reached(console: Console) -> None:
    one, other = missed_call(2), missed_call(3)
    await place_calls((one, timedelta(hours=2)), (other, timedelta(hours=1)))
    async with running() as again:
        assert first_ids(await listed(again)) == [one.id, other.id]
        assert await listed(again, state="closed") == []
        page = (await again("operator").get("/missed")).text
        assert 'id="nav-missed" class="n ring">2<' in page
        # The live feed replaces the figures of Now, wherever a page has an element with this id.
        assert 'id="figures"' not in page
    await place_calls((called_back(one), timedelta(minutes=30)))
    async with running() as again:
        assert first_ids(await listed(again)) == [other.id]
        [closed] = await listed(again, state="closed")
        assert closed["reached"]["how"] == "called back"
        assert closed["reached"]["by"] == "0003*213"
        assert first_ids(await listed(again, state="all")) == [one.id, other.id]
        page = re.sub(r"\s+", " ", (await again("operator").get("/missed?state=closed")).text)
        assert "0003*213 called back" in page
        assert "1:00" in page
        for state in ("open", "closed", "all"):
            shown = await command("--state", state, "--json")
            assert json.loads(shown) == await listed(again, state=state)
        assert "called back: 0003*213" in await command("--state", "closed")


async def test_an_erased_caller_is_forgotten(console: Console) -> None:
    missed = missed_call(2)
    await place_calls((missed, timedelta(hours=2)))
    settings = load_settings()
    async with opened(settings) as (inbox, _):
        calls = MissedCalls(inbox, settings.region)
        await asyncio.gather(calls.load(), calls.load())
        [caller] = calls.callers()
        kept = await Calls(inbox).get(f"main/{missed.id}")
        assert kept is not None
        await call_index.erase(inbox, kept.partition, [kept.name])
        assert calls.callers() == [caller]
        await calls.load()
        assert calls.callers() == []


async def test_the_list_is_filtered_by_queue_and_paged(console: Console) -> None:
    calls = [missed_call(seed) for seed in (2, 3, 5)]
    await place_calls(*((each, timedelta(hours=n + 1)) for n, each in enumerate(calls)))
    async with running() as again:
        wanted = calls[0].callbacks[0].extension
        some = await listed(again, queue=wanted)
        assert calls[0].id in first_ids(some)
        assert all(each["calls"][0]["called"]["extension"] == wanted for each in some)
        assert await listed(again, queue="0003*999") == []
        assert (
            "No missed caller waits" in (await again("operator").get("/missed?queue=0003*999")).text
        )
        client = again("operator")
        first = (await client.get(f"{MISSED}?limit=2")).json()
        assert (first["total"], len(first["missed"])) == (3, 2)
        rest = (await client.get(MISSED, params={"after": first["next"]})).json()
        assert first_ids(first["missed"] + rest["missed"]) == [each.id for each in reversed(calls)]
        assert rest["next"] is None
        for query, status in (("state=lost", 400), ("limit=0", 400), ("after=main/1", 404)):
            assert (await client.get(f"{MISSED}?{query}")).status_code == status, query
        assert (await client.get("/missed?state=lost")).status_code == 400


async def test_people_see_their_own_missed_callers_masked_or_not(console: Console) -> None:
    leg = from_outside("0003*210", {"CallID": "mine", "CallerIDNum": "+447700900811"})
    both = (leg.dial(0), leg.hang_up(20, CallStatus.NOANSWER))
    mine = ScriptedCall("mine", Scenario.MISSED, both)
    other = missed_call(3)
    assert other.callbacks[0].extension != "0003*210"
    await place_calls((mine, timedelta(hours=1)), (other, timedelta(hours=2)))
    async with running() as again:
        assert first_ids(await listed(again, "agent")) == ["mine"]
        assert len(await listed(again, "viewer")) == 2
        for path in (MISSED, "/missed", "/missed?state=all"):
            answer = await again("viewer").get(path)
            plain = re.sub(r"[ ()-]", "", answer.text)
            assert "811" in plain
            assert "7700900811" not in plain
            assert number_of(other)[-7:] not in plain
            assert other.id not in (await again("agent").get(path)).text


async def test_a_tenants_missed_callers_are_its_own(
    configure: Configure, password_hash: str
) -> None:
    tables = users(password_hash).replace('role = "viewer"\n', 'role = "viewer"\ntenant = "acme"\n')
    configure(f'{tables}[tenants.acme]\nextensions = ["main/0003*21?"]\n')
    placed = await place("missed", seed=2, tenant="acme")
    async with running() as console:
        assert first_ids(await listed(console, "viewer")) == [placed.id]
        assert await listed(console, "supervisor") == []
        assert placed.id not in (await console("supervisor").get("/missed?state=all")).text


@pytest.mark.parametrize("words", ["0003*400", '"><script>'])
async def test_a_filter_is_a_chip(console: Console, words: str) -> None:
    page = (await console("operator").get("/missed", params={"queue": words})).text
    assert 'href="/missed?state=open" aria-label="Remove Wanted' in page
    assert "<script>" not in page.partition("<main")[2]
