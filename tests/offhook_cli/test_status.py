"""`offhook status`."""

import asyncio
import getpass
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from rq import Worker
from rq.serializers import JSONSerializer

from offhook import queues
from offhook.connection import connect
from offhook.event import to_stored
from offhook.inbox import Inbox, keys, quarantine
from offhook.inbox.apart import move_apart
from offhook.inbox.leases import Leases
from offhook.inbox.partition import Changes, Partition
from offhook.inbox.positions import START
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import event
from tests.offhook_cli.conftest import Offhook, append
from workers.scheduler import Scheduler

CRM = '[handlers.crm]\nuse = "console"\n'
QUEUES: dict[str, list[str]] = {"offhook.serve": [], "offhook.scheduled": []}


@pytest.fixture
def rq(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as rq:
        yield rq


@pytest.fixture(autouse=True)
def _configuration(configure: Configure) -> None:
    configure(CRM, partitions=1)


def status(offhook: Offhook) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(offhook("status", "--json").stdout)
    return shown


def fill(url: str) -> None:
    """Append four events (delivered, parked, in flight, unread) and open the circuit."""

    async def run() -> None:
        async with connect(url) as client:
            inbox = Inbox(client, 1)
            await inbox.register({"crm": "earliest"})
            events = [event(f"call-{n}", n) for n in range(4)]
            await append(inbox, *events)
            partition = Partition(client, client, 0)
            await partition.lease.take()
            _, _, in_flight = [p.decode() for p, _ in await partition.range("", START, b"+", 3)]
            await partition.numbered(
                Changes(
                    streams=[("", in_flight, 0, [], ["crm", f"- {in_flight}"], [])],
                    lanes=[("park", "crm", events[1].call, events[1].id, 1, "9999999999999", 1)],
                    stored=[to_stored(events[1])],
                    counts={("crm", "delivered"): 1, ("crm", "failed"): 1},
                )
            )()
            await partition.lease.release()
            await Leases(client, 1, "", 1).note_circuit("crm", 60)

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
        "process": "shared",
        "apart": None,
        "paused": None,
    }
    assert shown["partitions"] == [4]


def test_paused_handler_is_shown_and_who_paused_it(redis_url: str, offhook: Offhook) -> None:
    fill(redis_url)
    assert offhook("handlers", "resume", "crm").stdout == "crm is not paused.\n"
    assert offhook("handlers", "pause", "crm").stdout == "crm is paused.\n"
    assert offhook("handlers", "pause", "crm").stdout == "crm is paused already.\n"
    [sentence] = [each for each in status(offhook)["problems"] if "paused" in each]
    assert sentence.startswith(f"crm is paused by {getpass.getuser()} since ")
    assert sentence.endswith(" UTC, 1 events wait: `offhook handlers resume crm`")
    assert " paused" in offhook("status").stdout
    assert offhook("handlers", "resume", "crm").stdout == "crm is resumed.\n"
    assert status(offhook)["handlers"][0]["paused"] is None
    assert offhook("handlers", "pause", "cmr").exit_code == 2


def test_table_counts_events_by_state(redis_url: str, offhook: Offhook) -> None:
    fill(redis_url)
    result = offhook("status")
    assert result.exit_code == 0
    [row] = [line for line in result.stdout.splitlines() if line.startswith(" crm")]
    assert row.split()[:7] == ["crm", "1", "1", "1", "1", "1", "0"]
    assert "open, probe in " in row
    assert "inbox: 4 events kept in 1 partition\n" in result.stdout
    assert "! crm's target is down: its circuit is open" in result.stdout


def test_partitions_are_summed(redis_url: str, configure: Configure, offhook: Offhook) -> None:
    configure(CRM, partitions=3)
    fill(redis_url)
    shown = status(offhook)
    assert shown["partitions"] == [4, 0, 0]
    assert shown["handlers"][0]["lag"] == 1
    assert "inbox: 4 events kept in 3 partitions" in offhook("status").stdout


def test_queues_without_workers_are_reported(offhook: Offhook) -> None:
    shown = status(offhook)
    assert shown["workers"] == QUEUES
    assert shown["problems"] == [
        "no workers run: start `offhook work`",
        "no scheduler: periodic jobs do not run; start `offhook work`",
    ]


@pytest.fixture
def worker(rq: redis.Redis) -> Worker:
    """A worker that could serve the handlers."""
    made = Worker(
        [queues.queue("offhook.serve", rq)], name="me", connection=rq, serializer=JSONSerializer
    )
    made.register_birth()  # type: ignore[no-untyped-call]
    return made


def test_workers_are_listed_by_queue(worker: Worker, offhook: Offhook) -> None:
    shown = status(offhook)
    assert shown["workers"] == QUEUES | {"offhook.serve": ["me"]}
    assert shown["problems"][0] == "no worker for offhook.scheduled: start `offhook work`"


def test_partitions_that_no_process_serves_are_reported(
    worker: Worker, rq: redis.Redis, offhook: Offhook, configure: Configure
) -> None:
    configure(CRM, partitions=3)
    rq.set(keys.serving(1), "a process")
    shown = status(offhook)
    assert shown["unserved"] == {"offhook.serve": [0, 2]}
    unserved = "offhook.serve does not serve partition 0, 2: see the log of `offhook work`"
    assert unserved in shown["problems"]
    rq.set(keys.serving(0), "a process")
    rq.set(keys.serving(2), "another")
    shown = status(offhook)
    assert shown["unserved"] == {}
    assert not any("does not serve" in problem for problem in shown["problems"])


def test_it_says_where_handlers_run(
    rq: redis.Redis, offhook: Offhook, configure: Configure
) -> None:
    assert "process" not in offhook("status").stdout
    names = {"crm": "shared", "log": "own", "bus": "slow", "bad": "shared"}
    configure(
        "".join(f'[handlers.{n}]\nuse = "console"\nprocess = "{p}"\n' for n, p in names.items())
    )
    move_apart(rq, "bad", "blocks")
    shown = status(offhook)
    assert {each["name"]: each["process"] for each in shown["handlers"]} == names
    assert [each["apart"] for each in shown["handlers"]] == [None, None, None, "blocks"]
    serving = {"offhook.serve", "offhook.serve.bad", "offhook.serve.log", "offhook.serve.slow"}
    assert shown["workers"].keys() == serving | {"offhook.scheduled"}
    assert "bad blocks: for now it runs in a process of its own" in shown["problems"]
    rows = [line.split() for line in offhook("status").stdout.splitlines()]
    ends = {row[0]: row[-1] for row in rows if row and row[0] in names}
    assert ends == names | {"log": "own", "bus": "slow", "bad": "own"}


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
            await quarantine.keep(client, [{"code": "missing_call_id"}], size=10)

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


def test_position_of_a_removed_handler_is_reported_and_can_be_deleted(
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
        assert client.keys("offhook:*crm*") == []
        tables = (keys.known(0), keys.behind(0), keys.parked(0), keys.attempts(0))
        assert not any(client.hkeys(table) for table in tables)
        assert client.zcard(keys.due(0)) == 0


def test_forget_keeps_only_the_dead_letters(
    redis_url: str, rq: redis.Redis, offhook: Offhook, configure: Configure
) -> None:
    fill(redis_url)
    dead = event("dead")
    queues.bury(rq, "crm", dead, attempt=1, error="no", trace="")
    configure('[handlers.new]\nuse = "console"\n')
    assert offhook("forget", "crm", "--yes").exit_code == 0
    assert rq.keys("rq:job:*") == [f"rq:job:{queues.dead_letter_id('crm', dead.id)}".encode()]
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
