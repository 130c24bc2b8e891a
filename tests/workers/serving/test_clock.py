"""The server's or our wall clock is set back by an hour: nothing waits for an hour."""

import asyncio

import pytest

from offhook import CallEvent, Context
from offhook.inbox.leases import LEASE_MS
from tests.events import event
from tests.workers.serving.bench import Bench, until
from tests.workers.serving.test_redeliveries import park
from workers.serving import redeliveries as module

HOUR = 3600.0


async def handle(one: CallEvent, context: Context) -> None: ...


async def test_lease_of_a_dead_server_expires(bench: Bench) -> None:
    """The clock of Redis was set back: keys expire an hour late."""
    key = bench.key("serving")
    bench.redis.set(key, "elsewhere/1/dead", px=int(HOUR * 1000) + LEASE_MS)
    async with bench.serving(handle):
        await until(lambda: 0 < bench.redis.pttl(key) <= LEASE_MS)


async def test_redelivery_is_made_when_it_was_due(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.05)
    now = module._clock()
    bench.plug(handle)
    await park(bench, event("a", 0), due=HOUR + 60)  # in the time after the clock is set back
    async with bench.serving():
        await until(lambda: bench.redis.exists(bench.key("serving")))
        await asyncio.sleep(0.2)
        assert bench.due()["crm main/a"] > HOUR, "moved before the clock was set back"
        monkeypatch.setattr(module, "_clock", lambda: now - HOUR)
        await until(lambda: bench.due()["crm main/a"] < 61)
        await asyncio.sleep(0.2)
        assert bench.due()["crm main/a"] > 50, "moved again"


async def test_slow_clock_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.02)
    now, looks = module._clock(), 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return now - looks / 2

    monkeypatch.setattr(module, "_clock", clock)
    bench.plug(handle)
    await park(bench, event("a", 0), due=HOUR)
    before = bench.redis.zrange(bench.key("due"), 0, -1, withscores=True)
    async with bench.serving():
        await until(lambda: looks > 20)
    assert bench.redis.zrange(bench.key("due"), 0, -1, withscores=True) == before
