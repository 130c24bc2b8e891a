"""`offhook status`."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from rq import Worker
from rq.serializers import JSONSerializer

from offhook import queues
from offhook.connection import connect
from offhook.inbox import Cursor, Inbox, quarantine
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import event
from tests.offhook_cli.conftest import Offhook, append
from workers.scheduler import Scheduler

CRM = '[handlers.crm]\nuse = "console"\n'
OURS: dict[str, list[str]] = {"offhook.calls.0": [], "offhook.scheduled": []}


@pytest.fixture
def rq(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as rq:
        yield rq


@pytest.fixture(autouse=True)
def _configuration(configure: Configure) -> None:
    configure(CRM)


def status(offhook: Offhook) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(offhook("status", "--json").stdout)
    return shown


def fill(url: str) -> None:
    """Append four events (delivered, parked, in flight, unread) and open the circuit."""

    async def run() -> None:
        async with connect(url) as client:
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

    asyncio.run(run())


def test_json_counts_events_by_state(redis_url: str, rq: redis.Redis, offhook: Offhook) -> None:
    fill(redis_url)
    queues.bury(rq, "crm", event(), attempt=1, error="no", trace="")
    shown = status(offhook)
    [crm] = shown["handlers"]
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
    assert shown["partitions"] == [4]


def test_table_counts_events_by_state(redis_url: str, offhook: Offhook) -> None:
    fill(redis_url)
    result = offhook("status")
    assert result.exit_code == 0
    [row] = [line for line in result.stdout.splitlines() if line.startswith(" crm")]
    assert row.split()[:7] == ["crm", "1", "1", "1", "1", "1", "0"]
    assert "open, probe in " in row
    assert "inbox: 4 events kept\n" in result.stdout
    assert "! crm's target is down: its circuit is open" in result.stdout


def test_partitions_are_summed(redis_url: str, configure: Configure, offhook: Offhook) -> None:
    configure(CRM, partitions=3)
    fill(redis_url)
    shown = status(offhook)
    assert shown["partitions"] == [4, 0, 0]
    assert shown["handlers"][0]["lag"] == 1
    assert "inbox: 4 events kept (4, 0, 0 by partition)" in offhook("status").stdout


def test_queues_without_workers_are_reported(offhook: Offhook) -> None:
    shown = status(offhook)
    assert shown["workers"] == {"offhook.crm.0": [], "offhook.crm.redeliver": []} | OURS
    assert shown["problems"] == [
        "no workers run: start `offhook work`",
        "no scheduler: redeliveries are not sent; start `offhook work`",
    ]


def test_workers_are_listed_by_queue(rq: redis.Redis, offhook: Offhook) -> None:
    worker = Worker(
        [queues.queue("offhook.crm.0", rq)], name="me", connection=rq, serializer=JSONSerializer
    )
    worker.register_birth()  # type: ignore[no-untyped-call]
    shown = status(offhook)
    assert shown["workers"] == {"offhook.crm.0": ["me"], "offhook.crm.redeliver": []} | OURS
    assert shown["problems"][0].startswith("no worker for offhook.crm.redeliver, offhook.calls.0")


def test_running_scheduler_is_detected(redis_url: str, rq: redis.Redis, offhook: Offhook) -> None:
    async def run() -> None:
        async with connect(redis_url) as client:
            await Scheduler(load_settings(), Inbox(client, 1), rq).round()

    assert status(offhook)["scheduler"] is False
    asyncio.run(run())
    assert status(offhook)["scheduler"] is True


def test_dead_letters_of_a_removed_handler_are_reported(rq: redis.Redis, offhook: Offhook) -> None:
    queues.bury(rq, "gone", event(), attempt=1, error="no", trace="")
    shown = status(offhook)
    assert shown["abandoned"] == {"gone": 1}
    assert "gone is no longer configured and has 1 dead letter" in shown["problems"][-1]


def test_refused_callbacks_are_reported(redis_url: str, offhook: Offhook) -> None:
    async def refuse() -> None:
        async with connect(redis_url) as client:
            await quarantine.keep(client, {"code": "missing_call_id"}, size=10)

    assert status(offhook)["refused"] == 0
    asyncio.run(refuse())
    shown = status(offhook)
    assert shown["refused"] == 1
    assert shown["problems"][-1].startswith("1 callback was refused: `offhook quarantine list`")


def test_missing_handlers_are_reported(configure: Configure, offhook: Offhook) -> None:
    configure()
    result = offhook("status")
    assert result.exit_code == 0
    assert "! no handler is configured" in result.stdout


def test_watch_repeats_until_interrupted(offhook: Offhook, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter([None, None])

    def sleep(seconds: float) -> None:
        if next(rounds, "over") == "over":
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    result = offhook("status", "--watch", "--json")
    assert result.exit_code == 0
    assert result.stdout.count('"handlers"') == 3


def test_cursor_of_a_removed_handler_is_reported_and_can_be_deleted(
    redis_url: str, offhook: Offhook, configure: Configure
) -> None:
    fill(redis_url)
    configure('[handlers.new]\nuse = "console"\n')
    shown = status(offhook)
    assert shown["leftover"] == ["crm"]
    assert any("`offhook forget crm` deletes it" in problem for problem in shown["problems"])
    refused = offhook("forget", "crm", input="n\n")
    assert refused.exit_code == 1
    assert status(offhook)["leftover"] == ["crm"]
    assert offhook("forget", "crm", "--yes").exit_code == 0
    shown = status(offhook)
    assert shown["leftover"] == []
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("offhook:{0}:*crm*") == []


def test_forget_keeps_only_the_dead_letters(
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


def test_forget_refuses_a_configured_handler(offhook: Offhook) -> None:
    answer = offhook("forget", "crm", "--yes")
    assert answer.exit_code == 2
    assert "is still configured" in answer.output


def test_forget_refuses_an_unknown_handler(offhook: Offhook) -> None:
    answer = offhook("forget", "typo", "--yes")
    assert answer.exit_code == 2
    assert "has no position" in answer.output


def test_risky_server_settings_are_reported(
    redis_url: str, rq: redis.Redis, offhook: Offhook
) -> None:
    rq.config_set("maxmemory-policy", "allkeys-lru")
    try:
        shown = offhook("status").output
    finally:
        rq.config_set("maxmemory-policy", "noeviction")
    assert "set maxmemory-policy to noeviction" in shown
