"""A handler in a process of its own depends on no handler of the shared ones."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from offhook import CallEvent, Context
from offhook.inbox import Inbox, keys
from offhook.inbox.apart import move_apart
from offhook.inbox.partition import Partition
from offhook.inbox.replays import Replays
from tests.events import event
from tests.workers.serving.bench import Bench, until
from workers.serving import partition_server, reader


async def test_replay_reaches_the_process_that_serves_the_handler(bench: Bench) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    got = bench.record(process="own", events=["raw"])
    await bench.append(*(event(n=n) for n in range(3)))
    async with bench.serving(), bench.serving(pool="crm"):
        while (await bench.state()).delivered < 3:
            await asyncio.sleep(0.01)

        async def set_back(inbox: Inbox) -> int:
            return await Replays(inbox).set_back("crm", before)

        assert await bench.with_inbox(set_back) >= 3  # and the events of the call
        await until(lambda: got == ["0", "1", "2"] * 2, "they are delivered again")
        await until(lambda: not bench.redis.exists(bench.key("replays")), "the replay is done")


async def test_replay_begins_though_a_dead_process_took_its_mark(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "WAIT", 0.1)
    monkeypatch.setattr(reader, "SWEEP_EVERY", 0.2)
    got = bench.record(events=["raw"])
    await bench.append(event(n=0))
    async with bench.serving():
        await until(lambda: got == ["0"], "it is delivered")
        await bench.finished()
        with bench.redis.pipeline() as pipeline:  # as `set_back` does, without the mark
            pipeline.hset(bench.key("replays"), "crm", "0-0")
            pipeline.sadd(bench.key("unfinished"), "")
            pipeline.execute()
        await until(lambda: got == ["0", "0"], "it is delivered again")


async def test_replay_that_is_seen_while_it_is_forgotten_is_made_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays, replayed = Partition.replays, Partition.replayed
    seen = asyncio.Event()

    async def seen_late(self: Partition, tenants: Sequence[str]) -> dict[str, dict[str, bytes]]:
        found = await replays(self, tenants)
        if any(found.values()):
            seen.set()
            await until(lambda: not bench.redis.exists(bench.key("replays")), "it is forgotten")
            await asyncio.sleep(0.05)
        return found

    async def forgotten_once_seen(
        self: Partition, tenant: str, handler: str, position: bytes
    ) -> None:
        await seen.wait()
        await replayed(self, tenant, handler, position)

    monkeypatch.setattr(Partition, "replays", seen_late)
    monkeypatch.setattr(Partition, "replayed", forgotten_once_seen)
    got = bench.record(events=["raw"])
    await bench.append(event(n=0))
    async with bench.serving():
        await until(lambda: got == ["0"], "it is delivered")
        await bench.finished()
    before = datetime.now(UTC) - timedelta(minutes=1)
    await bench.with_inbox(lambda inbox: Replays(inbox).set_back("crm", before))
    async with bench.serving():
        await until(lambda: not bench.redis.exists(bench.key("replays")), "the replay is done")
        await asyncio.sleep(0.3)
        await bench.finished()
    assert got == ["0", "0"]


async def test_handler_is_given_to_its_process_again_if_that_was_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "WAIT", 0.1)
    monkeypatch.setattr(reader, "SWEEP_EVERY", 0.2)
    bench.record(process="own")

    def is_given() -> bool:
        return bool(bench.redis.hget(bench.key("owners"), "crm") == b"crm")

    async with bench.serving():
        await until(is_given, "it is given")
        bench.redis.delete(bench.key("owners"))  # as a failover may do
        await until(is_given, "it is given again")


async def test_process_whose_record_was_lost_gives_its_handler_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_server, "WATCH_EVERY", 0.1)
    got = bench.record(events=["raw"])
    move_apart(bench.redis, "crm", "blocks")
    async with bench.serving():
        apart, task = await bench.start("crm")
        await bench.append(event(n=0))
        await until(lambda: got == ["0"], "it is delivered apart")
        assert bench.redis.hget(bench.key("owners"), "crm") == b"crm"
        bench.redis.delete(keys.APART)  # as a failover may do
        await until(task.done, "the process ends")
        assert apart.guard.returns
        await bench.append(event(n=1))
        await until(lambda: got == ["0", "1"], "it is delivered with the others")


async def test_handler_that_has_enough_delays_no_other_process(bench: Bench) -> None:
    got: list[str] = []
    go_on = asyncio.Event()

    async def hang(one: CallEvent, context: Context) -> None:
        await go_on.wait()

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])

    bench.plug(hang, "slow", concurrency=1, events=["raw"])
    bench.plug(handle, process="own", events=["raw"])
    async with bench.serving() as shared, bench.serving(pool="crm"):
        slow = bench.served(shared, "slow")
        slow.room = 2
        await bench.append(event("call-0", 0), event("call-1", 1))
        await until(lambda: len(got) == 2 and slow.is_full, "the slow handler has enough")
        for n in range(2, 5):
            await bench.append(event(f"call-{n}", n))
            await until(lambda: got[-1] == str(n), "another event is delivered")  # noqa: B023
        go_on.set()
        await bench.finished()


async def test_replay_goes_on_after_a_lost_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays, faults = Partition.replays, iter([True])

    async def unreliable(self: Partition, tenants: Sequence[str]) -> dict[str, dict[str, bytes]]:
        if next(faults, False):
            raise RedisConnectionError("the answer is lost")
        return await replays(self, tenants)

    before = datetime.now(UTC) - timedelta(minutes=1)
    got = bench.record(events=["raw"])
    await bench.append(event(n=0))
    async with bench.serving():
        await until(lambda: got == ["0"], "it is delivered")
        await bench.finished()
        monkeypatch.setattr(Partition, "replays", unreliable)
        await bench.with_inbox(lambda inbox: Replays(inbox).set_back("crm", before))
        await until(lambda: got == ["0", "0"], "it is delivered again")


async def test_handler_that_is_configured_again_gets_what_it_missed(bench: Bench) -> None:
    got = bench.record(events=["raw"])
    others: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        others.append(one.parameters["n"])

    bench.plug(handle, "log", events=["raw"])
    both = list(bench.handlers)
    await bench.append(event("a", 0))
    async with bench.serving():
        await bench.all_done()
    bench.handlers = [each for each in both if each.name == "log"]
    bench.change(handlers={"log": bench.handlers[0].policy})
    await bench.append(event("b", 1))
    async with bench.serving():
        await bench.all_done()
    assert (got, others) == (["0"], ["0", "1"])
    bench.handlers = both
    bench.change(handlers={each.name: each.policy for each in both})
    async with bench.serving():  # no event comes that wakes the stream
        await until(lambda: got == ["0", "1"], "it gets the event")


async def test_server_that_ends_with_an_error_frees_its_leases(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.record()
    server, task = await bench.start()
    await until(lambda: bench.redis.exists(bench.key("serving")), "it serves")

    async def broken() -> None:
        raise ValueError("a bug")

    server.run_beside(broken())
    with pytest.raises(ValueError, match="a bug"):
        await asyncio.wait_for(task, 20)
    assert not bench.redis.exists(bench.key("serving"))
