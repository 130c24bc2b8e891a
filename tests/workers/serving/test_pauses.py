"""A handler that a person paused gets nothing; its events wait in order, across processes."""

import asyncio
from collections import defaultdict

import pytest

from offhook import CallEvent, Context, TemporaryError
from offhook.connection import connect
from offhook.inbox import keys
from offhook.inbox.apart import Apart
from offhook.inbox.partition import DUE
from offhook.operations.losses import losing, seconds_until_loss
from offhook.operations.pausing import set_paused
from offhook.settings import TenantSettings
from tests.events import event
from tests.workers.serving.bench import Bench, until
from workers.serving import due, partition_server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_server, "WATCH_EVERY", 0.02)
    monkeypatch.setattr(due, "PAUSED_WAIT", (0.1, 0.2))


async def pause(bench: Bench, handler: str = "crm", *, paused: bool = True) -> None:
    async with connect(bench.url) as client:
        assert await set_paused(client, handler, "ruth", paused=paused)


async def test_paused_handler_gets_nothing_and_then_everything_in_order(bench: Bench) -> None:
    got: dict[str, list[str]] = defaultdict(list)

    async def handle(one: CallEvent, context: Context) -> None:
        got[one.call_id].append(one.parameters["n"])

    other = defaultdict(list)

    async def beside(one: CallEvent, context: Context) -> None:
        other[one.call_id].append(one.parameters["n"])

    bench.plug(beside, "log")
    calls = [f"call-{n}" for n in range(5)]
    async with bench.serving(handle) as server:
        await bench.append(*(event(call, 0) for call in calls))
        await bench.finished()
        await pause(bench)
        await until(lambda: bench.served(server).paused)
        # Far more than a handler may have in memory.
        bench.served(server).room = 4
        await bench.append(*(event(call, n) for n in range(1, 300) for call in calls))
        await until(lambda: sum(map(len, other.values())) == 1500, "others go on")
        assert sum(map(len, got.values())) == 5
        assert bench.served(server).outstanding == 0
        assert (await bench.state()).lag == 1495
    # A new process begins nothing, either.
    async with bench.serving() as server:
        await bench.append(event("call-0", 300))
        await until(lambda: len(other["call-0"]) == 301)
        assert sum(map(len, got.values())) == 5
        await pause(bench, paused=False)
        await bench.finished()
    everything = [str(n) for n in range(300)]
    assert got == dict.fromkeys(calls[1:], everything) | {"call-0": [*everything, "300"]}
    assert other == got


async def test_pause_stops_a_lane_that_runs(bench: Bench) -> None:
    await bench.append(*(event("call", n) for n in range(20)))
    got: list[str] = []
    go_on = asyncio.Event()

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])
        if len(got) == 3:
            await go_on.wait()

    async with bench.serving(handle) as server:
        await until(lambda: len(got) == 3)
        await pause(bench)
        await until(lambda: bench.served(server).paused)
        go_on.set()
        await until(lambda: bench.served(server).idle)
        assert len(got) == 3
        await pause(bench, paused=False)
        await bench.finished()
    assert got == [str(n) for n in range(20)]


async def test_redeliveries_of_a_paused_handler_wait_without_an_attempt(bench: Bench) -> None:
    attempts: list[tuple[str, int]] = []
    fails = True

    async def handle(one: CallEvent, context: Context) -> None:
        attempts.append((one.parameters["n"], context.attempt))
        if fails:
            raise TemporaryError("not yet")

    async with bench.serving(handle, retry=[3600]) as server:
        await bench.append(event("call", 0))
        await until(bench.parked)
        await pause(bench)
        await until(lambda: bench.served(server).paused)
        await bench.append(event("call", 1))
        for _ in range(2):
            bench.redis.zadd(bench.key("due"), {"crm main/call": 1})
            bench.redis.zadd(bench.key("ready"), {DUE: 0})
            await until(lambda: bench.due().get("crm main/call", -1.0) > 0, "it is postponed")
        assert attempts == [("0", 1)]
        assert bench.parked() == 1
        fails = False
        await pause(bench, paused=False)
        await bench.all_done()
    assert attempts == [("0", 1), ("0", 2), ("1", 1)]


async def test_handler_in_a_process_of_its_own_is_paused_there(bench: Bench) -> None:
    got = bench.record()
    bench.redis.hset(keys.APART, "crm", Apart.now("blocks").stored())
    await pause(bench)
    async with bench.serving(), bench.serving(pool="crm") as own:
        await bench.append(event("call", 0))
        await until(lambda: bench.served(own).paused and own.share.partitions)
        await asyncio.sleep(0.3)
        assert got == []
        await pause(bench, paused=False)
        await until(lambda: got == ["0"])


async def test_handler_of_a_tenant_is_paused_by_its_full_name(bench: Bench) -> None:
    bench.tenants["acme"] = TenantSettings(extensions=["main/0003*210"])
    got = bench.record()
    its: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        its.append(one.parameters["n"])

    bench.plug(handle, "acme/crm", start="earliest")
    await pause(bench, "acme/crm")
    async with bench.serving() as server:
        await bench.append(event("call", 1))
        await bench.append(event("call", 2, tenant="acme"))
        await until(lambda: got == ["1"])
        assert bench.served(server, "acme/crm").paused
        assert its == []
        await pause(bench, "acme/crm", paused=False)
        await until(lambda: its == ["2"])
    assert got == ["1"]


async def test_says_when_a_paused_handler_loses_events(bench: Bench) -> None:
    bench.record()
    await bench.append(*(event(f"call-{n}") for n in range(600)))

    async def left(most: int | None) -> dict[str, float]:
        bench.change(max_events=most)
        found: dict[str, float] = await bench.with_inbox(
            lambda inbox: seconds_until_loss(inbox, bench.settings, {"": ["crm"]})
        )
        return found

    assert await left(None) == {}
    found = await left(1000)  # 600 wait, which came within a moment: the other 400 soon will
    assert 0 < found["crm"] < 60
    assert await left(600) == {"crm": 0.0}
    [sentence] = losing({"crm": 7300.0})
    assert "loses the oldest that wait for it in about 2 hours" in sentence
