"""The API: its answers, its description, and repeated requests."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import redis as blocking

from offhook import queues
from offhook.inbox import keys
from offhook.settings import load_settings
from offhook_console.json_api.endpoints import ENDPOINTS
from offhook_console.json_api.openapi_document import openapi
from tests.events import event
from tests.offhook_console.conftest import TOKEN, Console, place

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "openapi.json"
BASE = "/api/v1"


def document() -> dict[str, Any]:
    """Return the document as JSON has it."""
    read: dict[str, Any] = json.loads(msgspec.json.encode(openapi(ENDPOINTS)))
    return read


def client_of(console: Console) -> httpx.AsyncClient:
    client = console("")
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    return client


def test_the_openapi_document_is_checked_in() -> None:
    written = json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
    assert DOCUMENT.read_text() == written, "write it anew: python -m tests.offhook_console.openapi"


def test_the_openapi_document_is_valid() -> None:
    import openapi_spec_validator  # takes more than a second, in each process of pytest

    openapi_spec_validator.validate(document())


async def test_the_openapi_document_is_served(console: Console) -> None:
    assert (await console("").get(f"{BASE}/openapi.json")).json() == document()


async def test_calls_are_listed_in_pages_of_a_cursor(console: Console) -> None:
    placed = [await place("missed", seed=n, ago=timedelta(minutes=60 - n)) for n in range(1, 6)]
    client = client_of(console)
    listed: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": "2"} | ({"before": cursor} if cursor else {})
        page = (await client.get(f"{BASE}/calls", params=query)).json()
        listed += [call["id"] for call in page["calls"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert listed == [call.id for call in reversed(placed)]


async def test_calls_are_filtered_by_the_words_of_the_command_line(console: Console) -> None:
    answered = await place("answered", seed=1)
    missed = await place("missed", seed=2)
    live = await place("answered", 2, seed=3, ago=timedelta(minutes=1))
    client = client_of(console)

    async def listed(**query: str) -> set[str]:
        answer = await client.get(f"{BASE}/calls", params=query)
        assert answer.status_code == 200, answer.text
        return {call["id"] for call in answer.json()["calls"]}

    assert await listed() == {answered.id, missed.id, live.id}
    assert await listed(outcome="missed") == {missed.id}
    assert await listed(live="yes") == {live.id}
    assert missed.id in await listed(extension=missed.callbacks[0].extension)
    assert await listed(since=datetime.now(UTC).isoformat()) == set()
    number = dict(missed.callbacks[0].parameters)["CallerIDNum"]
    assert missed.id in await listed(q=number)
    assert missed.id in await listed(q=number[-6:])
    live_calls = (await client.get(f"{BASE}/calls/live")).json()["calls"]
    assert [call["id"] for call in live_calls] == [live.id]


async def test_a_call_has_its_events(console: Console) -> None:
    call = await place("answered")
    client = client_of(console)
    answer = (await client.get(f"{BASE}/calls/main/{call.id}")).json()
    assert answer["call"]["outcome"] == "answered"
    assert [each["type"] for each in answer["events"]] == [
        each.type.label for each in call.callbacks
    ]


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("calls?limit=0", "limit"),
        ("calls?limit=x", "limit"),
        ("calls?limit=501", "limit"),
        ("calls?outcome=lost", "outcome"),
        ("calls?since=yesterday", "since"),
        ("calls?q=***", "q"),
        ("calls?since=9999-12-31T23:59:59-23:00", "since"),
        ("dead-letters?since=x", "since"),
        ("dead-letters?limit=-1", "limit"),
    ],
)
async def test_a_wrong_parameter_is_named(console: Console, path: str, word: str) -> None:
    answer = await client_of(console).get(f"{BASE}/{path}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == 400
    assert problem["title"] == "Bad Request"
    assert word in problem["detail"]


@pytest.mark.parametrize(
    "path", ["calls?before=0000-00-00", "calls?before=@x", "dead-letters?after=x"]
)
async def test_a_cursor_that_is_none_is_a_problem_with_404(console: Console, path: str) -> None:
    answer = await client_of(console).get(f"{BASE}/{path}")
    assert answer.status_code == 404
    assert "start again" in answer.json()["detail"]


async def test_a_wrong_method_is_answered_with_the_right_ones(console: Console) -> None:
    answer = await client_of(console).put(f"{BASE}/audit")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize(
    "path",
    ["calls/main/none", "handlers/none", "nothing", "calls/main/a%00b/c%2Fd", "calls/%ff/%ff"],
)
async def test_what_is_not_there_is_a_problem_with_404(console: Console, path: str) -> None:
    answer = await client_of(console).get(f"{BASE}/{path}")
    assert answer.status_code == 404
    assert answer.json()["status"] == 404


async def test_handlers_and_status(console: Console, rq: blocking.Redis) -> None:
    queues.bury(rq, "crm", event(), attempt=3, error="410", trace="t")
    rq.set(keys.circuit("log"), "open", ex=60)
    client = client_of(console)
    handlers = {
        each["name"]: each for each in (await client.get(f"{BASE}/handlers")).json()["handlers"]
    }
    assert handlers["crm"]["dead"] == 1
    assert 0 < handlers["log"]["circuit"] <= 60
    assert (await client.get(f"{BASE}/handlers/crm")).json() == handlers["crm"]
    status = (await client.get(f"{BASE}/status")).json()
    assert any("crm has dead letters" in each for each in status["problems"])
    assert status["live"] == status["quarantined"] == 0


async def test_dead_letters_are_filtered_and_paged(console: Console, rq: blocking.Redis) -> None:
    events = [event(f"call-{n}", n) for n in range(5)]
    for n, each in enumerate(events):
        queues.bury(rq, "crm", each, attempt=1, error="503" if n % 2 else "410", trace="t")
    client = client_of(console)
    first = (await client.get(f"{BASE}/dead-letters?limit=3")).json()
    assert (first["total"], len(first["dead_letters"])) == (5, 3)
    rest = (await client.get(f"{BASE}/dead-letters?after={first['next']}")).json()
    found = [each["event"]["id"] for each in first["dead_letters"] + rest["dead_letters"]]
    assert found == [each.id for each in events]
    assert rest["next"] is None
    for query, number in (("error=503", 2), ("q=call-3", 1), ("handler=log", 0), ("q=41", 3)):
        total = (await client.get(f"{BASE}/dead-letters?{query}")).json()["total"]
        assert total == number, query


async def test_a_key_is_not_for_a_request_with_another_query(console: Console) -> None:
    client, path = client_of(console), f"{BASE}/handlers/crm/test"
    answers = [
        await client.post(f"{path}?event={kind}", headers={"Idempotency-Key": "k"})
        for kind in ("hangup", "dial-in", "hangup")
    ]
    assert [each.status_code for each in answers] == [202, 409, 202]
    assert answers[0].json()["type"] == "hangup"
    assert answers[2].json() == answers[0].json()


async def test_a_repeated_request_is_one_operation(console: Console, rq: blocking.Redis) -> None:
    queues.bury(rq, "crm", event(), attempt=1, error="410", trace="t")
    client = client_of(console)
    body, path = {"kind": "discard", "handler": "crm"}, f"{BASE}/dead-letters/operations"
    same = [
        (await client.post(path, json=body, headers={"Idempotency-Key": "k"})).json()["id"]
        for _ in range(2)
    ]
    other = (await client.post(path, json=body, headers={"Idempotency-Key": "l"})).json()["id"]
    assert same[0] == same[1] != other
    assert len((await client.get(path)).json()["operations"]) == 2
    for id_ in (same[0], other):
        undone = (await client.post(f"{path}/{id_}/undo")).json()
        assert undone["state"] == "undone"
    assert (await client.get(f"{BASE}/dead-letters")).json()["total"] == 1
    said = [each["did"] for each in (await client.get(f"{BASE}/audit")).json()["entries"]]
    assert said[-1] == "asked to discard 1 dead letter"
    assert "undid the discard of 1 dead letter" in said
    [*_, asked] = (await client.get(f"{BASE}/audit")).json()["entries"]
    assert (asked["change"], asked["details"]["number"]) == ("discard-asked", 1)


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", '{"kind": "burn"}', '{"kind": "retry", "more": 1}', '{"kind": 1}', "\\u"],
)
async def test_a_wrong_body_is_refused(console: Console, body: str) -> None:
    answer = await client_of(console).post(f"{BASE}/dead-letters/operations", content=body)
    assert answer.status_code == 400
    assert "body" in answer.json()["detail"]


async def test_discarding_many_needs_their_number(console: Console, rq: blocking.Redis) -> None:
    for n in range(100):
        queues.bury(rq, "crm", event("c", n), attempt=1, error="410", trace="t")
    client, path = client_of(console), f"{BASE}/dead-letters/operations"
    for count in (None, 99):
        answer = await client.post(path, json={"kind": "discard", "count": count})
        assert answer.status_code == 409
        assert "100" in answer.json()["detail"]
    started = await client.post(path, json={"kind": "discard", "count": 100})
    assert started.status_code == 202
    await client.post(f"{path}/{started.json()['id']}/undo")


async def test_a_handler_that_is_gone_cannot_be_retried(
    console: Console, rq: blocking.Redis
) -> None:
    queues.bury(rq, "old", event(), attempt=1, error="410", trace="t")
    answer = await client_of(console).post(
        f"{BASE}/dead-letters/operations", json={"kind": "retry"}
    )
    assert answer.status_code == 409
    assert "old: no longer configured" in answer.json()["detail"]


REFUSED: dict[Any, Any] = {
    "received": datetime.now(UTC).isoformat(),
    "code": "no_call_id",
    "message": "There is no CallID.",
    "pbx": "main",
    "extension": "0003*210",
    "event_type": "hangup",
    "method": "POST",
    "query": "",
    "body": "CallStatus=ANSWER",
    "content_type": "application/x-www-form-urlencoded",
}


async def test_an_event_that_workers_set_aside_is_in_the_quarantine(
    console: Console, rq: blocking.Redis
) -> None:
    set_aside: Any = {"error": "it cannot be read", "event": b"\xff"}
    added: Any = await asyncio.to_thread(rq.xadd, keys.quarantine(), set_aside)
    key = added.decode()
    client = client_of(console)
    [listed] = (await client.get(f"{BASE}/quarantine")).json()["callbacks"]
    assert (listed["id"], listed["message"]) == (key, "it cannot be read")
    at = datetime.fromisoformat(listed["received"]).timestamp()
    assert at * 1000 == pytest.approx(int(key.partition("-")[0]))
    assert "it cannot be read" in (await console("operator").get(f"/quarantine?id={key}")).text
    still = (await client.post(f"{BASE}/quarantine/{key}/deliver")).json()
    assert still == {"outcome": "refused", "message": "it cannot be read"}
    assert (await client.delete(f"{BASE}/quarantine/{key}")).status_code == 204


async def test_a_call_is_shown_among_events_that_cannot_be_read(
    console: Console, rq: blocking.Redis
) -> None:
    call = await place("answered", seed=1)
    for partition in range(load_settings().partitions):
        await asyncio.to_thread(_read_no_more, rq, keys.inbox(partition), call.id)
    found = (await client_of(console).get(f"{BASE}/calls/main/{call.id}")).json()
    assert len(found["events"]) == len(call.callbacks) - 1


def _read_no_more(rq: blocking.Redis, stream: str, call_id: str) -> None:
    """Write the second event of a call as a later version might."""
    entries: Any = rq.xrange(stream)
    mine = [at for at, fields in entries if f'"call_id":"{call_id}"'.encode() in fields[b"e"]]
    if mine:
        rq.delete(stream)
        for at, fields in entries:
            stored = fields[b"e"].replace(b'{"v":1,', b'{"v":2,') if at == mine[1] else fields[b"e"]
            rq.xadd(stream, {"e": stored, "n": fields[b"n"]}, id=at)


async def test_the_quarantine_is_listed_delivered_and_discarded(
    console: Console, rq: blocking.Redis
) -> None:
    bad, good = REFUSED, REFUSED | {"body": "CallStatus=ANSWER&CallID=7&CallFlow=in"}
    for each in (bad, good):
        await asyncio.to_thread(rq.xadd, keys.quarantine(), each)
    client = client_of(console)
    listed = (await client.get(f"{BASE}/quarantine")).json()["callbacks"]
    assert [each["request"]["body"] for each in listed] == [good["body"], bad["body"]]
    still = (await client.post(f"{BASE}/quarantine/{listed[1]['id']}/deliver")).json()
    assert still["outcome"] == "refused"
    done = (await client.post(f"{BASE}/quarantine/{listed[0]['id']}/deliver")).json()
    assert done == {"outcome": "delivered", "message": None}
    assert rq.xlen(keys.inbox(0)) == 1
    assert (await client.delete(f"{BASE}/quarantine/{listed[1]['id']}")).status_code == 204
    assert (await client.get(f"{BASE}/quarantine")).json() == {"callbacks": []}
    assert (await client.delete(f"{BASE}/quarantine/0-1")).status_code == 404
