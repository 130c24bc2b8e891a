"""The pages, as the server writes them: filters in URLs, exports, changes and errors."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
import redis as blocking

from offhook import ExtensionSettings, queues
from offhook.call import Kind
from offhook.connection import opened
from offhook.extensions import Extensions
from offhook.inbox import keys
from offhook.inbox.call_store import Calls
from offhook.inbox.record_part import AttemptMade, AttemptOutcome, RecordPart
from offhook.operations.phone_states import RegistrationState
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import event
from tests.offhook_console.conftest import Console, place, running, users
from tests.offhook_console.test_api import REFUSED


def links(page: str) -> list[str]:
    return [unescape(each) for each in re.findall(r'<a[^>]* href="([^"]+)"', page)]


async def label(extension: str, name: str, kind: Kind = Kind.PHONE) -> None:
    async with opened(load_settings()) as (inbox, _):
        settings = ExtensionSettings(label=name, kind=kind)
        await Extensions(inbox.redis).change({("main", extension): settings})


async def test_no_link_is_dead(console: Console, rq: blocking.Redis) -> None:
    await place("answered", seed=1)
    queues.bury(rq, "crm", event(), attempt=1, error="503", trace="t")
    rq.xadd(keys.quarantine(), REFUSED)
    async with running() as again:
        client = again("operator")
        to_see = ["/now"]
        seen: set[str] = set()
        while to_see:
            path = to_see.pop()
            if path in seen or path.startswith("#"):
                continue
            if path.startswith("/now?at=") and any(each.startswith("/now?at=") for each in seen):
                continue  # each moment leads to the one before
            seen.add(path)
            answer = await client.get(path)
            assert answer.status_code == 200 or path.startswith("/calls/main/call-1"), path
            to_see += links(answer.text)
    assert {urlsplit(each).path for each in seen} >= {
        "/now",
        "/calls",
        "/calls.csv",
        "/missed",
        "/handlers",
        "/handlers/crm",
        "/dead-letters",
        "/quarantine",
        "/audit",
    }


async def test_a_call_shows_who_got_what(console: Console, rq: blocking.Redis) -> None:
    placed = await place("missed", seed=3, ago=timedelta(hours=1))
    async with opened(load_settings()) as (inbox, _):
        kept = await Calls(inbox).get(f"main/{placed.id}")
        assert kept is not None
        first, second, *_ = await Calls(inbox).events(kept)
    part, began = RecordPart(""), first.received.timestamp()
    failed, delivered = AttemptOutcome.FAILED, AttemptOutcome.DELIVERED
    for made in (
        AttemptMade.of("crm", 1, began, began + 2.5, failed, "answered 503: <busy>"),
        AttemptMade.of("acme/crm", 1, began, began + 1, delivered, "another's"),
        AttemptMade.of("crm", 2, began + 10, began + 10.004, delivered, ""),
    ):
        part.add(first, made)
    last = began + 20
    part.add(second, AttemptMade.of("crm", 1, last, last, AttemptOutcome.DEAD, "answered 410"))
    part.add(first, AttemptMade.of("log", 1, last, last, delivered, ""))  # in the same millisecond
    *_, line = part.dump()
    rq.rpush(keys.tried(kept.partition, first.call), b"1795000000000-0 " + line)
    path = f"/calls/main/{placed.id}"
    page = (await console("operator").get(path)).text
    section = page.partition('id="told"')[2].partition("</section>")[0]
    rows = [
        [
            unescape(re.sub("<[^>]+>", "", cell))
            for cell in re.findall(r"<t[dh][ >].*?</t[dh]>", row)
        ]
        for row in section.partition("<tbody>")[2].split("</tr>")[:-1]
    ]
    assert [row[1:] for row in rows] == [
        ["crm", "dial-in", "1", "2.5 s", "failed, retries", "answered 503: <busy>"],
        ["crm", "dial-in", "2", "4 ms", "delivered", "–"],
        ["log", "dial-in", "1", "< 1 ms", "delivered", "–"],
        ["crm", "hangup", "1", "< 1 ms", "dead letter", "answered 410"],
    ]
    assert "live-handlers" not in page  # all is delivered
    answer = (await console("operator").get(f"/api/v1{path}")).json()
    assert [each["outcome"] for each in answer["deliveries"]] == [
        *("failed", "delivered", "delivered", "dead")
    ]
    assert 'id="told"' not in (await console("viewer").get(path)).text
    assert (await console("viewer").get(f"/api/v1{path}")).json()["deliveries"] is None


async def test_now_shows_each_call_in_its_lane(console: Console) -> None:
    await label("0003*210", "Front desk")
    ringing = await place("answered", 1, seed=4, ago=timedelta(seconds=30))
    talking = await place("answered", 2, seed=5, ago=timedelta(seconds=90))
    ended = await place("missed", seed=6, ago=timedelta(seconds=120))
    async with running() as again:
        page = (await again("supervisor").get("/now")).text
    lanes = {
        lane: re.findall(r'data-name="main/([^"]+)"', part)
        for lane, part in re.findall(r'<ul id="lane-(\w+)"(.*?)</ul>', page, re.DOTALL)
    }
    assert lanes == {"ringing": [ringing.id], "talking": [talking.id], "ended": [ended.id]}
    assert page.count('data-clock="') == 2


async def test_now_lists_queues_and_phones(console: Console, rq: blocking.Redis) -> None:
    await place("missed")
    await label("0003*400", "Sales", Kind.QUEUE)
    await label("0003*211", "Tom Reyes")
    states: dict[Any, Any] = {
        "0003*211": msgspec.json.encode(RegistrationState(registered=False)),
        "0003*212": msgspec.json.encode(RegistrationState(registered=True)),
    }
    rq.hset(keys.phones("main"), mapping=states)
    async with running() as again:
        page = (await again("viewer").get("/now")).text
        own = (await again("agent").get("/now")).text
    assert "no caller waits" in page
    assert "0003*211 Tom Reyes" in page
    assert "1 / 2" in page
    assert "Tom Reyes" not in own  # an agent sees own extensions


async def test_every_filter_is_a_chip_that_can_be_removed(console: Console) -> None:
    await place("missed", seed=2)
    client = console("operator")
    page = (await client.get("/calls?q=a&outcome=missed&live=yes&extension=0003*210")).text
    without = re.findall(r'<a href="([^"]+)" aria-label="Remove (\w+)', page)
    assert {name for _, name in without} == {"Search", "Outcome", "In", "Extension"}
    for url, name in without:
        left = parse_qs(urlsplit(unescape(url)).query)
        assert len(left) == 3, name
    [export] = [each for each in links(page) if each.startswith("/calls.csv")]
    assert parse_qs(urlsplit(export).query)["outcome"] == ["missed"]


async def test_older_calls_are_on_the_next_page(console: Console) -> None:
    placed = [await place("missed", seed=9, ago=timedelta(hours=n)) for n in (1,)]
    page = (await console("operator").get("/calls")).text
    assert f"main/{placed[0].id}" in page
    assert 'rel="next"' not in page


async def test_the_export_has_all_that_match_and_no_formula(console: Console) -> None:
    missed = await place("missed", seed=2)
    await place("answered", seed=1)
    answer = await console("operator").get("/calls.csv?outcome=missed")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    [row] = csv.DictReader(io.StringIO(answer.text))
    assert row["call"] == f"main/{missed.id}"
    assert row["outcome"] == "missed"
    for line in csv.reader(io.StringIO(answer.text)):
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in line)


async def test_a_call_is_drawn_with_its_legs_and_events(console: Console) -> None:
    call = await place("ring-group", seed=3)
    page = (await console("operator").get(f"/calls/main/{call.id}")).text
    assert page.count('class="trk"') == len({each.extension for each in call.callbacks})
    shown = page.partition("<main")[2].partition("</main>")[0]
    assert shown.count("<details") == len(call.callbacks)
    assert "style=" not in page
    masked = (await console("viewer").get(f"/calls/main/{call.id}")).text
    assert "<details" not in masked.partition("<main")[2].partition("</main>")[0]
    assert "Raw events contain numbers" in masked


HOSTILE = '"><script>alert(1)</script>'


async def test_hostile_texts_stay_texts(console: Console, rq: blocking.Redis) -> None:
    one = msgspec.structs.replace(
        event(HOSTILE, extension=HOSTILE),
        caller=msgspec.structs.replace(event().caller, name=HOSTILE, number=HOSTILE),
    )
    queues.bury(rq, "crm", one, attempt=1, error=HOSTILE, trace=HOSTILE)
    rq.xadd(keys.quarantine(), REFUSED | {"message": HOSTILE, "body": HOSTILE})
    client = console("operator")
    paths = [
        "/dead-letters",
        f"/dead-letters/{queues.dead_letter_id('crm', one.id)}",
        "/handlers/crm",
        "/quarantine",
        f"/calls?q={HOSTILE}",
        f"/dead-letters?q={HOSTILE}&error={HOSTILE}&handler={HOSTILE}",
    ]
    for path in paths:
        answer = await client.get(path)
        assert answer.status_code == 200, path
        assert "<script>alert" not in answer.text, path
    answer = await client.post("/sign-in", data={"name": HOSTILE, "password": "x", "next": HOSTILE})
    assert "<script>alert" not in answer.text


async def test_dead_letters_by_answer_are_retried_and_undone(
    console: Console, rq: blocking.Redis
) -> None:
    for n in range(6):
        queues.bury(rq, "crm", event("c", n), attempt=1, error=f"50{n % 2}", trace="t")
    client = console("operator")
    page = (await client.get("/dead-letters?error=501")).text
    assert "1–3 of 3" in page
    asked = re.findall(r'name="asked" value="([^"]+)"', page)[0]
    form = {"kind": "retry", "error": "501", "asked": asked}
    answer = await client.post("/dead-letters/operations", data=form)
    assert answer.status_code == 303
    page = (await client.get(answer.headers["location"])).text
    assert "<b>3 dead letters</b> will be retried in" in page
    [undo] = re.findall(r'action="(/dead-letters/operations/\w+/undo)"', page)
    assert (await client.post(undo)).status_code == 303
    assert "Nothing was done to 3 dead letters" in (await client.get("/dead-letters")).text
    assert (await client.post("/dead-letters/operations/none/undo")).status_code == 404


async def test_ticked_dead_letters_alone_are_chosen(console: Console, rq: blocking.Redis) -> None:
    events = [event("c", n) for n in range(3)]
    for each in events:
        queues.bury(rq, "crm", each, attempt=1, error="503", trace="t")
    ids = [queues.dead_letter_id("crm", each.id) for each in events[:2]]
    client = console("operator")
    answer = await client.post("/dead-letters/operations", data={"kind": "discard", "ids": ids})
    page = (await client.get(answer.headers["location"])).text
    assert "<b>2 dead letters</b> will be discarded in" in page


async def test_a_dead_letter_shows_its_event_and_stack_trace(
    console: Console, rq: blocking.Redis
) -> None:
    one = event("call-7", 4)
    queues.bury(rq, "crm", one, attempt=3, error="answered 410", trace="Trace: line 3")
    client = console("operator")
    page = (await client.get(f"/dead-letters/{queues.dead_letter_id('crm', one.id)}")).text
    assert "answered 410" in page
    assert "Trace: line 3" in page
    assert one.id in page
    assert (await client.get("/dead-letters/crm-none")).status_code == 404


async def test_an_open_circuit_is_a_band_on_top(console: Console, rq: blocking.Redis) -> None:
    client = console("operator")
    assert "the target is down" not in (await client.get("/handlers")).text
    rq.set(keys.circuit("crm"), "open", ex=60)
    rq.hset(keys.APART, "log", msgspec.json.encode({"reason": "blocked", "since": 4e9}))
    for path in ("/handlers", "/handlers/crm", "/handlers/log"):
        assert (await client.get(path)).status_code == 200
    page = (await client.get("/handlers")).text
    assert "<strong>crm: the target is down.</strong>" in page
    assert re.search(r'id="nav-handlers" class="n bad">1<', page)


async def test_a_handler_is_set_back_after_a_count(console: Console) -> None:
    async with opened(load_settings()) as (inbox, _):
        await inbox.register({"crm": "earliest"})
    await place("answered", seed=1)
    client = console("operator")
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    counted = await client.get("/handlers/crm/replay", params={"since": since})
    assert counted.status_code == 200
    assert (await client.post("/handlers/crm/replay", data={"since": since})).status_code == 303
    assert "set crm back to" in (await client.get("/audit")).text
    for wrong in ("", "x", "2999-01-01T00:00"):
        answer = await client.get("/handlers/crm/replay", params={"since": wrong})
        assert answer.status_code == 400
    assert (await client.get("/handlers/none/replay", params={"since": since})).status_code == 404


async def test_a_refused_callback_is_delivered_or_discarded(
    console: Console, rq: blocking.Redis
) -> None:
    keep: Any = partial(rq.xadd, keys.quarantine())
    bad = keep(REFUSED).decode()
    good = keep(REFUSED | {"body": "CallID=1&CallFlow=in"}).decode()
    client = console("operator")
    page = (await client.get(f"/quarantine?id={bad}")).text
    assert "There is no CallID." in page
    steps = [
        (bad, "deliver", "refused"),
        (good, "deliver", "delivered"),
        (bad, "discard", "discarded"),
    ]
    for key, kind, did in steps:
        answer = await client.post("/quarantine", data={"id": key, "kind": kind})
        assert f"did={did}" in answer.headers["location"]
        page = (await client.get(answer.headers["location"])).text
    assert "The quarantine is empty" in page
    assert (
        await client.post("/quarantine", data={"id": bad, "kind": "deliver"})
    ).status_code == 404
    log = (await client.get("/audit")).text
    assert "tried to deliver a callback of 0003*210" in log


@pytest.mark.parametrize("path", ["/none", "/calls/main/none", "/handlers/none", "/calls?since=x"])
async def test_an_error_is_a_page(console: Console, path: str) -> None:
    answer = await console("operator").get(path)
    assert answer.status_code in (400, 404)
    assert answer.headers["content-type"].startswith("text/html")
    assert 'role="alert"' in answer.text


async def test_without_redis_a_page_says_so(configure: Configure, password_hash: str) -> None:
    configure(users(password_hash), redis_url="redis://127.0.0.1:1/0")
    async with running(loaded=False) as console:
        client = console("operator")
        page = await client.get("/calls")
        assert page.status_code == 503
        assert "Redis does not answer. Callbacks are still accepted" in page.text
        problem = await client.get("/api/v1/calls")
        assert problem.status_code == 503
        assert problem.json()["title"] == "Service Unavailable"
        assert (await client.get("/now")).status_code == 503
