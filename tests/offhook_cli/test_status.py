"""`offhook status`."""

import asyncio
import json
from collections.abc import Iterator

import pytest
import redis
from rq import Worker
from rq.serializers import JSONSerializer

from offhook import queues
from offhook.connection import connect
from offhook.inbox import Cursor, Inbox
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import event
from tests.offhook_cli.conftest import Offhook, append
from workers.scheduler import Scheduler

CRM = '[handlers.crm]\nuse = "console"\n'


@pytest.fixture
def rq(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as rq:
        yield rq


@pytest.fixture(autouse=True)
def _configuration(configure: Configure) -> None:
    configure(CRM)


def fill(url: str) -> None:
    """Four events: one delivered, one parked, one in flight, one not read; the circuit is open."""

    async def run() -> None:
        client = connect(url)
        inbox = Inbox(client, 1)
        await inbox.ensure_cursor("crm", "earliest")
        events = [event(f"call-{n}", n) for n in range(4)]
        await append(inbox, *events)
        cursor = Cursor(inbox, "crm", 0)
        await cursor.take()
        delivered, failed, _ = await cursor.read(3, 10)
        await cursor.acknowledge([delivered.position], 1)
        await cursor.park(failed, 1)
        await cursor.count("failed")
        await cursor.open_circuit(60)
        await client.aclose()

    asyncio.run(run())


def test_it_counts_what_is_where(redis_url: str, rq: redis.Redis, offhook: Offhook) -> None:
    fill(redis_url)
    queues.bury(rq, "crm", event(), attempt=1, error="no", trace="")
    told = json.loads(offhook("status", "--json").stdout)
    [crm] = told["handlers"]
    assert 55 < crm.pop("circuit") <= 60
    assert crm == {
        "name": "crm",
        "lag": 1,
        "in_flight": 1,
        "waiting": 1,
        "delivered": 1,
        "failed": 1,
        "dead": 1,
    }
    assert told["partitions"] == [4]


def test_it_is_readable(redis_url: str, offhook: Offhook) -> None:
    fill(redis_url)
    result = offhook("status")
    assert result.exit_code == 0
    [row] = [line for line in result.stdout.splitlines() if line.startswith(" crm")]
    assert row.split()[:7] == ["crm", "1", "1", "1", "1", "1", "0"]
    assert "open, probe in " in row
    assert "inbox: 4 events kept\n" in result.stdout
    assert "! crm's target is down: its circuit is open" in result.stdout


def test_partitions_are_added_up(redis_url: str, configure: Configure, offhook: Offhook) -> None:
    configure(CRM, partitions=3)
    fill(redis_url)
    told = json.loads(offhook("status", "--json").stdout)
    assert told["partitions"] == [4, 0, 0]
    assert told["handlers"][0]["lag"] == 1
    assert "inbox: 4 events kept (4, 0, 0 by partition)" in offhook("status").stdout


OURS: dict[str, list[str]] = {"offhook.calls.0": [], "offhook.scheduled": []}


def test_a_queue_that_nobody_serves_is_told(offhook: Offhook) -> None:
    told = json.loads(offhook("status", "--json").stdout)
    assert told["workers"] == {"offhook.crm.0": [], "offhook.crm.redeliver": []} | OURS
    assert told["problems"] == [
        "no workers run: start `offhook work`",
        "no scheduler: redeliveries are not sent; start `offhook work`",
    ]


def test_who_works_is_told(rq: redis.Redis, offhook: Offhook) -> None:
    worker = Worker(
        [queues.queue("offhook.crm.0", rq)], name="me", connection=rq, serializer=JSONSerializer
    )
    worker.register_birth()  # type: ignore[no-untyped-call]
    told = json.loads(offhook("status", "--json").stdout)
    assert told["workers"] == {"offhook.crm.0": ["me"], "offhook.crm.redeliver": []} | OURS
    assert told["problems"][0].startswith("no worker for offhook.crm.redeliver, offhook.calls.0")


def test_a_scheduler_that_runs_is_seen(redis_url: str, rq: redis.Redis, offhook: Offhook) -> None:
    async def run() -> None:
        client = connect(redis_url)
        await Scheduler(load_settings(), Inbox(client, 1), rq).round()
        await client.aclose()

    assert json.loads(offhook("status", "--json").stdout)["scheduler"] is False
    asyncio.run(run())
    assert json.loads(offhook("status", "--json").stdout)["scheduler"] is True


def test_dead_letters_of_a_handler_that_is_gone_are_not_forgotten(
    rq: redis.Redis, offhook: Offhook
) -> None:
    queues.bury(rq, "gone", event(), attempt=1, error="no", trace="")
    told = json.loads(offhook("status", "--json").stdout)
    assert told["abandoned"] == {"gone": 1}
    assert "gone is no longer configured and has 1 dead letter" in told["problems"][-1]


def test_refused_callbacks_are_not_overlooked(redis_url: str, offhook: Offhook) -> None:
    async def refuse() -> None:
        async with connect(redis_url) as client:
            await Inbox(client, 1).quarantine({"code": "missing_call_id"}, size=10)

    assert json.loads(offhook("status", "--json").stdout)["refused"] == 0
    asyncio.run(refuse())
    told = json.loads(offhook("status", "--json").stdout)
    assert told["refused"] == 1
    assert told["problems"][-1].startswith("1 callback was refused: `offhook quarantine list`")


def test_no_handler_at_all_is_told(configure: Configure, offhook: Offhook) -> None:
    configure()
    result = offhook("status")
    assert result.exit_code == 0
    assert "! no handler is configured" in result.stdout


def test_watching_goes_on_until_it_is_interrupted(
    offhook: Offhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = iter([None, None])

    def sleep(seconds: float) -> None:
        if next(rounds, "over") == "over":
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    result = offhook("status", "--watch", "--json")
    assert result.exit_code == 0
    assert result.stdout.count('"handlers"') == 3


def test_a_cursor_of_a_handler_that_is_configured_no_more_is_told_and_can_be_deleted(
    redis_url: str, offhook: Offhook, configure: Configure
) -> None:
    fill(redis_url)
    configure('[handlers.new]\nuse = "console"\n')
    told = json.loads(offhook("status", "--json").stdout)
    assert told["leftover"] == ["crm"]
    assert any("`offhook forget crm` deletes it" in problem for problem in told["problems"])
    refused = offhook("forget", "crm", input="n\n")
    assert refused.exit_code == 1
    assert json.loads(offhook("status", "--json").stdout)["leftover"] == ["crm"]
    assert offhook("forget", "crm", "--yes").exit_code == 0
    told = json.loads(offhook("status", "--json").stdout)
    assert told["leftover"] == []
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("offhook:{0}:*crm*") == []


def test_of_a_handler_that_is_forgotten_only_the_dead_letters_stay(
    redis_url: str, rq: redis.Redis, offhook: Offhook, configure: Configure
) -> None:
    fill(redis_url)
    dead, waits, due = event("dead"), event("waits"), event("due")
    queues.bury(rq, "crm", dead, attempt=1, error="no", trace="")
    queues.redeliver(rq, "crm", waits, delay=3600)
    queues.redeliver(rq, "crm", due, delay=0)
    queues.wake(rq, "crm", 0)
    configure('[handlers.new]\nuse = "console"\n')
    assert offhook("forget", "crm", "--yes").exit_code == 0
    assert rq.keys("rq:job:*") == [f"rq:job:{queues.redelivery_id('crm', dead.id)}".encode()]
    assert rq.zcard("rq:scheduled:offhook.crm.redeliver") == 0
    assert rq.zcard("rq:failed:offhook.crm.redeliver") == 1


def test_what_is_configured_is_not_forgotten(offhook: Offhook) -> None:
    answer = offhook("forget", "crm", "--yes")
    assert answer.exit_code == 2
    assert "is still configured" in answer.output


def test_what_was_never_there_cannot_be_forgotten(offhook: Offhook) -> None:
    answer = offhook("forget", "typo", "--yes")
    assert answer.exit_code == 2
    assert "has no position" in answer.output


def test_it_says_what_the_servers_settings_put_at_risk(
    redis_url: str, rq: redis.Redis, offhook: Offhook
) -> None:
    rq.config_set("maxmemory-policy", "allkeys-lru")
    try:
        shown = offhook("status").output
    finally:
        rq.config_set("maxmemory-policy", "noeviction")
    assert "set maxmemory-policy to noeviction" in shown
