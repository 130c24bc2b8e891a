"""A partition of the version before is taken over: nothing lost, nothing twice, however it ends."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as blocking
from redis.asyncio import Redis

from offhook import CallEvent, Context, queues
from offhook.connection import connect
from offhook.errors import LeaseLost
from offhook.inbox import Inbox, keys, migration
from offhook.inbox.handler_states import HandlerStates
from offhook.inbox.migration import migrate
from offhook.inbox.partition import Partition
from tests.events import event
from tests.installation import Installation, wait_until
from tests.offhook.inbox.earlier import EarlierInbox
from tests.workers.serving.bench import Bench, until
from workers.serving import served_partition
from workers.serving.redeliveries import Redeliveries


@pytest.fixture
def rq(redis_url: str) -> Iterator[Any]:
    with blocking.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def earlier(rq: Any) -> EarlierInbox:
    return EarlierInbox(rq)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as client:
        yield client


def everything(rq: Any) -> dict[bytes, object]:
    """All keys and values, without the stream."""
    read = {
        b"string": rq.get,
        b"hash": rq.hgetall,
        b"set": rq.smembers,
        b"zset": lambda key: rq.zrange(key, 0, -1, withscores=True),
        b"list": lambda key: rq.lrange(key, 0, -1),
        b"stream": rq.xlen,
    }
    return {key: read[rq.type(key)](key) for key in rq.scan_iter()}


async def test_each_handler_continues_where_it_was(earlier: EarlierInbox, redis: Redis) -> None:
    await migrate(redis, 0)
    at = earlier.positions
    [state] = await Partition(redis, redis, 0).load([""])
    assert state.records == {"crm": (at[3], [at[3]]), "log": (at[8], [])}
    assert state.known == {"crm", "log"}
    assert state.read == at[8]  # the furthest: the others read for themselves up to there
    crm = await HandlerStates(Inbox(redis, 1)).state("crm", 0)
    assert (crm.lag, crm.in_flight, crm.failed) == (5, 1, 2)


async def test_calls_are_folded_on_from_the_first_event_that_was_not(
    earlier: EarlierInbox, redis: Redis
) -> None:
    await migrate(redis, 0)
    [state] = await Partition(redis, redis, 0).load([""])
    before = await Partition(redis, redis, 0).range("", b"0-0", state.folded, 100)
    assert [position for position, _ in before] == earlier.positions[:6]


async def test_a_parked_lane_keeps_its_events_attempts_and_due_time(
    earlier: EarlierInbox, redis: Redis
) -> None:
    await migrate(redis, 0)
    partition = Partition(redis, redis, 0)
    await partition.lease.take()
    due = earlier.due.timestamp()
    assert await partition.due_times.begin(due - 1, 10) == (due, [])
    _, [begun] = await partition.due_times.begin(due, 10)
    assert (begun.handler, begun.call, begun.attempt) == ("crm", "main/parked", 3)
    assert earlier.events["parked"][0].id.encode() in begun.stored
    assert await redis.llen(keys.lane(0, "crm", "main/parked")) == 3


async def test_a_redelivery_that_was_due_is_due_at_once(
    earlier: EarlierInbox, redis: Redis, rq: Any
) -> None:
    earlier.enqueue_redelivery()
    await migrate(redis, 0)
    assert float(rq.zscore(keys.due(0), "crm main/parked")) <= time.time() * 1000
    assert rq.llen("rq:queue:offhook.crm.redeliver") == 0


async def test_a_server_that_starts_looks_at_what_was_taken_over(
    earlier: EarlierInbox, redis: Redis
) -> None:
    await migrate(redis, 0)
    partition = Partition(redis, redis, 0)
    assert await partition.unfinished() == [""]
    assert set(await partition.marks(0.1)) == {"", "*"}


async def test_nothing_of_the_earlier_version_is_left(
    earlier: EarlierInbox, redis: Redis, rq: Any
) -> None:
    await migrate(redis, 0)
    assert rq.xinfo_groups(keys.inbox(0)) == []
    assert rq.keys("rq:*") == [b"rq:queues"]
    assert rq.smembers("rq:queues") == {b"rq:queue:offhook.crm.redeliver"}
    kept = (
        keys.inbox(0),
        keys.last(0),
        keys.known(0),
        keys.behind(0),
        keys.read(0),
        keys.folded(0),
        keys.parked(0),
        keys.attempts(0),
        keys.due(0),
        keys.unfinished(0),
        keys.ready(0),
        keys.counts(0, "crm"),
        keys.lane(0, "crm", "main/parked"),
    )
    assert {key.decode() for key in rq.keys("offhook:*")} == set(kept)


async def test_dead_letters_stay_also_those_that_were_enqueued_again(
    earlier: EarlierInbox, redis: Redis, rq: Any
) -> None:
    stays, again = event("dead", 0), event("dead", 1)
    for each in (stays, again):
        queues.bury(rq, "crm", each, attempt=3, error="answered 410", trace="Trace")
    registry = queues.queue(queues.dead_queue("crm"), rq).failed_job_registry
    registry.requeue(queues.dead_letter_id("crm", again.id))
    await migrate(redis, 0)
    assert queues.is_dead(rq, "crm", stays.id)
    assert [job.args[1]["id"] for job in queues.requeued(rq, "crm")] == [again.id]


@pytest.mark.parametrize("done", [0, 1, 2, 3])
async def test_a_process_that_dies_between_two_steps_leaves_the_rest_to_the_next(
    done: int, redis_url: str, redis: Redis, rq: Any, earlier: EarlierInbox
) -> None:
    groups: Any = await redis.xinfo_groups(keys.inbox(0))
    for group in groups[:done]:
        assert await migration._take_over(redis, 0, group["name"].decode())
    await migrate(redis, 0)
    after = everything(rq)
    await migrate(redis, 0)
    assert everything(rq) == after
    [state] = await Partition(redis, redis, 0).load([""])
    at = earlier.positions
    assert state.records == {"crm": (at[3], [at[3]]), "log": (at[8], [])}
    assert rq.zscore(keys.due(0), "crm main/parked") == earlier.due.timestamp() * 1000


async def test_two_processes_may_take_over_at_once(
    earlier: EarlierInbox, redis: Redis, rq: Any, redis_url: str
) -> None:
    async with connect(redis_url) as other:
        await asyncio.gather(migrate(redis, 0), migrate(other, 0))
    assert rq.hgetall(keys.attempts(0)) == {b"crm main/parked": b"2"}
    assert rq.xinfo_groups(keys.inbox(0)) == []


async def test_a_position_given_too_early_does_not_skip_events(
    earlier: EarlierInbox, redis: Redis
) -> None:
    await Inbox(redis, 1).register({"crm": "now"})
    await migrate(redis, 0)
    [state] = await Partition(redis, redis, 0).load([""])
    assert state.records["crm"] == (earlier.positions[3], [earlier.positions[3]])


async def test_a_group_made_later_by_a_process_of_that_version_changes_no_position(
    earlier: EarlierInbox, redis: Redis, rq: Any
) -> None:
    await migrate(redis, 0)
    rq.set(keys.flushed(0), "a server has read since")
    before = await Partition(redis, redis, 0).load([""])
    rq.xgroup_create(keys.inbox(0), "crm", "$")
    rq.xgroup_create(keys.inbox(0), "calls", "$")
    await migrate(redis, 0)
    assert await Partition(redis, redis, 0).load([""]) == before
    assert rq.xinfo_groups(keys.inbox(0)) == []


async def test_workers_of_the_earlier_version_are_waited_for(
    earlier: EarlierInbox,
    redis: Redis,
    rq: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(migration, "_LOOK_EVERY", 0.01)
    rq.set("offhook:{0}:awake:crm", "a-machine/1/token")
    with caplog.at_level(logging.WARNING):
        task = asyncio.create_task(migrate(redis, 0))
        await asyncio.sleep(0.2)
        assert not task.done()
        assert b"crm" in {group["name"] for group in rq.xinfo_groups(keys.inbox(0))}
        rq.delete("offhook:{0}:awake:crm")
        await task
    assert [each.message for each in caplog.records] == [
        "workers of an earlier version still run: waiting until they stop"
    ]


async def test_an_inbox_of_this_version_is_left_alone(redis: Redis, rq: Any) -> None:
    await migrate(redis, 0)
    assert rq.keys() == []
    rq.xadd(keys.inbox(0), {"e": "x", "n": 1})
    await migrate(redis, 0)
    assert rq.keys() == [keys.inbox(0).encode()]


@pytest.mark.parametrize("noticed_by", ["a look", "the lease"])
async def test_takeover_that_a_failover_loses_is_made_again(
    redis_url: str,
    rq: Any,
    earlier: EarlierInbox,
    monkeypatch: pytest.MonkeyPatch,
    noticed_by: str,
) -> None:
    earlier.enqueue_redelivery()
    bench = Bench(redis_url)
    got = defaultdict(list)

    async def handle(one: CallEvent, context: Context) -> None:
        got[one.call].append(one.parameters["n"])

    bench.plug(handle, "crm")
    bench.plug(handle, "log", events=["answer-out"])
    before: dict[bytes, Any] = {}
    opened = Redeliveries.open

    def fail_over() -> None:
        rq.delete(*rq.scan_iter())
        for key, value in before.items():
            rq.restore(key, 0, value)
        before.clear()

    async def migrated(redis: Redis, partition: int) -> bool:
        first = not before
        if first:
            before.update((key, rq.dump(key)) for key in rq.scan_iter())
        found = await migrate(redis, partition)
        if first and noticed_by == "a look":
            fail_over()
            monkeypatch.setattr(served_partition, "migrate", migrate)
        return found

    async def open_later(self: Redeliveries) -> None:
        if before:
            fail_over()
            monkeypatch.setattr(served_partition, "migrate", migrate)
        await opened(self)

    monkeypatch.setattr(served_partition, "migrate", migrated)
    monkeypatch.setattr(Redeliveries, "open", open_later)
    server, task = await bench.start()
    if noticed_by == "the lease":
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(task, 20)
        rq.delete(keys.serving(0))  # it expires
        server, task = await bench.start()
    await until(lambda: sum(map(len, got.values())) >= 9, "crm has all events")
    server.stop()
    await task
    assert got == {f"main/{call}": ["0", "1", "2"] for call in earlier.events}


def test_the_workers_deliver_everything_once_and_in_order(
    redis_url: str, rq: Any, earlier: EarlierInbox, tmp_path: Path
) -> None:
    earlier.enqueue_redelivery()
    handlers = "".join(
        f'[handlers.{name}]\nuse = "tests.recorders:record"\n' for name in ("crm", "log")
    )
    with Installation.running(tmp_path, handlers, redis_url=redis_url, partitions=1) as offhook:
        wait_until(lambda: len(offhook.delivered("crm")) >= 9, "crm has all events")
        got: dict[str, list[int]] = {}
        for _, call, n in offhook.delivered("crm"):
            got.setdefault(call, []).append(n)
        assert got == {call: [0, 1, 2] for call in earlier.events}
        assert offhook.delivered("log") == []
