"""What a person asks about a handler, and does to it: on its page, and by the API."""

from datetime import UTC, datetime, timedelta
from typing import Any

import redis as blocking

from offhook import queues
from offhook.connection import opened
from offhook.inbox import Inbox, keys
from offhook.inbox.paused import paused_handlers
from offhook.inbox.record_part import AttemptMade, AttemptOutcome, RecordPart
from offhook.operations.audit import changes
from offhook.operations.proof import DayProof, added
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import event
from tests.offhook_console.conftest import Console, place, running, users


async def test_pause_with_undo_is_shown_and_noted(console: Console) -> None:
    client = console("operator")
    answer = await client.post("/handlers/crm/pause")
    assert answer.headers["location"] == "/handlers/crm?did=paused"
    page = (await client.get("/handlers/crm?did=paused")).text
    assert "Paused by operator" in page
    assert "Undo" in page
    assert "paused" in (await client.get("/handlers")).text
    [crm, log] = (await client.get("/api/v1/handlers")).json()["handlers"]
    assert crm["paused"]["by"] == "operator"
    assert log["paused"] is None
    resumed = (await client.post("/api/v1/handlers/crm/resume")).json()
    assert resumed["paused"] is None
    assert (await client.post("/api/v1/handlers/crm/pause")).json()["paused"]["by"] == "operator"
    assert (await client.post("/handlers/crm/resume")).status_code == 303
    async with opened(load_settings()) as (inbox, _):
        assert await paused_handlers(inbox.redis) == {}
        did = [each.did for each in await changes(inbox.redis)]
    assert did == ["resumed crm", "paused crm"] * 2
    for path in ("/handlers/none/pause", "/api/v1/handlers/none/pause", "/handlers/none/test"):
        assert (await client.post(path)).status_code == 404


async def test_test_event_says_what_becomes_of_it(console: Console) -> None:
    client = console("operator")
    answer = await client.post("/handlers/crm/test", data={"event": "hangup"})
    to = answer.headers["location"]
    assert to.startswith("/handlers/crm?test=main%2Ftest-")
    assert "The test event is on its way" in (await client.get(to)).text
    async with opened(load_settings()) as (inbox, _):
        parked: Any = await inbox.redis.hkeys(keys.parked(0))
    assert len(parked) == 1
    assert parked[0].startswith(b"crm main/test-")
    sent = await client.post("/api/v1/handlers/log/test?event=dial-in")
    assert (sent.status_code, sent.json()["type"]) == (202, "dial-in")
    for event_type in ("call-ended", "nothing"):
        refused = await client.post(f"/api/v1/handlers/log/test?event={event_type}")
        assert refused.status_code == 400
        assert "event: " in refused.json()["detail"]
    assert "on its way" not in (await client.get("/handlers/crm?test=<script>")).text


async def test_filter_question_is_answered_in_place(console: Console) -> None:
    await place("answered", ago=timedelta(minutes=10))
    client = console("operator")
    path = "/handlers/crm?events=calls&extensions=&of=7d"
    page = (await client.get(path)).text
    assert "It would have got" in page
    assert "call-ended" in page
    question = "/api/v1/handlers/crm/filter"
    answer = (await client.get(f"{question}?events=calls&of=7d")).json()
    assert answer["would_get"] == answer["more"] == sum(answer["types"].values()) > 0
    assert answer["complete"]
    wrong = (await client.get("/handlers/crm?events=%3Cb%3E&of=1h")).text
    assert "&lt;b&gt;" in wrong
    assert "<b>&lt;" not in wrong
    for query in ("of=tomorrow", "events=nonsense", f"extensions={'1' * 3000}"):
        assert (await client.get(f"{question}?{query}")).status_code == 400, query


async def test_course_counts_attempts_and_how_long_they_took(console: Console) -> None:
    now = datetime.now(UTC)
    async with opened(load_settings()) as (inbox, _):
        await record(inbox, now)
    client = console("operator")
    course = (await client.get("/api/v1/handlers/crm/course?span=1h")).json()
    assert len(course["parts"]) == 60
    assert {each["began"][-4:] for each in course["parts"]} == {":00Z"}
    assert sum(each["delivered"] for each in course["parts"]) == 3
    assert sum(each["failed"] for each in course["parts"]) == 1
    took = [each for each in course["parts"] if each["median"] is not None]
    assert [(each["median"], each["p99"]) for each in took] == [(100.0, 2500.0)]
    assert course["complete"]
    page = (await client.get("/handlers/crm?span=7d")).text
    assert "4 attempts, 1 of them failed" in page
    assert (await client.get("/api/v1/handlers/crm/course?span=1y")).status_code == 400


async def record(inbox: Inbox, now: datetime) -> None:
    """Add attempts to the record, as the workers do."""
    began = now.timestamp() - 60
    part = RecordPart("")
    for n, (seconds, outcome) in enumerate(
        ((0.05, "delivered"), (0.1, "delivered"), (0.1, "delivered"), (2.5, "failed"))
    ):
        made = AttemptMade.of("crm", 1, began, began + seconds, AttemptOutcome(outcome), "")
        part.add(event("call-1", n), made)
    calls, handlers, _, lines = part.dump()
    position = f"{int(now.timestamp() * 1000)}-0"
    await inbox.redis.rpush(keys.tried(0, "main/call-1"), position.encode() + b" " + lines)
    await inbox.redis.xadd(keys.recorded(0), {"c": calls, "h": handlers}, id=position)


async def test_proof_has_each_day_and_what_was_recovered(
    configure: Configure, password_hash: str
) -> None:
    configure(f"[pbx.main]\n{users(password_hash)}")
    now = datetime.now(UTC)
    async with running() as clients:
        client = clients("operator")
        assert "Nothing was compared yet" in (await client.get("/proof")).text
        async with opened(load_settings()) as (inbox, _):
            day = DayProof(
                day=now.date(), records=5, here=3, recovered=("main/lost",), compared=now
            )
            fields, _ = await added(inbox.redis, "main", "", [day, day])
            await inbox.redis.hset(keys.proof("main"), mapping=dict(fields))  # type: ignore[arg-type]
        page = (await client.get("/proof?days=7")).text
        assert "3 calls in the records of main are not here" in page
        assert 'href="/calls/main/lost"' in page
        [found] = (await client.get("/api/v1/proof?days=90")).json()["pbxs"]["main"]
        assert (found["records"], found["here"], found["recovered"]) == (10, 6, ["main/lost"])
        for days in ("0", "91", "x", "-1"):
            assert (await client.get(f"/api/v1/proof?days={days}")).status_code == 400
        assert (await client.post("/proof/compare")).headers["location"] == "/proof"
        with blocking.Redis.from_url(load_settings().redis_url) as rq:
            [job] = queues.queue(queues.SCHEDULED, rq).jobs
            assert job.func_name == "workers.reconcile.job.reconcile"
