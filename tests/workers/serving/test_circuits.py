"""Circuits with a real server: an outage of the target costs waiting events nothing."""

import asyncio
from collections import defaultdict

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from offhook import CallEvent, Context, TemporaryError
from offhook.inbox.leases import Leases
from tests.events import event
from tests.workers.serving.bench import Bench, until

FAR = 3600.0


async def test_open_circuit_holds_events_without_redeliveries(bench: Bench) -> None:
    await bench.append(*(event(f"call-{n}") for n in range(100)))
    tried = 0

    async def handle(one: CallEvent, context: Context) -> None:
        nonlocal tried
        tried += 1
        raise TemporaryError("down")

    async with bench.serving(handle, concurrency=2) as server:
        bench.served(server).circuit._waits = (FAR,)
        await until(lambda: bench.redis.exists("offhook:circuit:crm"))
        await asyncio.sleep(0.1)
    assert tried <= 7  # five in a row, and those in flight meanwhile
    parked = bench.parked()
    assert parked <= 4  # those before the fifth
    state = await bench.state()
    assert state.in_flight + state.lag >= 100 - parked


async def test_successful_delivery_resets_the_count_of_failures(bench: Bench) -> None:
    async def handle(one: CallEvent, context: Context) -> None:
        if one.call_id != "good":
            raise TemporaryError("down")

    async with bench.serving(handle) as server:
        for call in ("1", "2", "3", "4", "good", "5", "6", "7", "8"):
            await bench.append(event(call))
            await bench.finished()
        assert bench.served(server).circuit.state == "closed"
    assert bench.parked() == 8


async def test_outage_costs_waiting_events_no_attempt(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.append(*(event(f"call-{c}", n) for n in range(3) for c in range(20)))
    got: dict[str, list[str]] = {}
    attempts: dict[str, list[int]] = defaultdict(list)
    tried = 0

    async def handle(one: CallEvent, context: Context) -> None:
        nonlocal tried
        tried += 1
        if tried < 60:
            attempts[one.id].append(context.attempt)
            raise TemporaryError("down", retry_after=FAR)
        got.setdefault(one.call_id, []).append(one.parameters["n"])

    async with bench.serving(handle, retry=[1], concurrency=1) as server:
        bench.served(server).circuit._waits = (0.01,)
        await bench.finished()
        assert bench.served(server).circuit.state == "closed"
        await until(lambda: not bench.redis.exists("offhook:circuit:crm"), "this is noted")
    assert bench.parked() == 4  # those that failed before it opened
    levels = {each.getMessage()[:14]: each.levelno for each in caplog.records}
    assert levels["circuit open: "] == levels["circuit closed"]
    assert bench.dead() == []
    assert list(got.values()) == [["0", "1", "2"]] * 16
    assert all(set(made) == {1} for made in attempts.values())


async def test_circuit_that_closed_before_it_was_noted_is_not_noted_as_open(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.append(*(event(f"call-{n}") for n in range(7)))
    note, noted, tried = Leases.note_circuit, list[float | None](), 0

    async def away_at_first(self: Leases, handler: str, seconds: float | None) -> None:
        if seconds is not None and not noted:
            raise RedisConnectionError("no answer")
        noted.append(seconds)
        await note(self, handler, seconds)

    async def handle(one: CallEvent, context: Context) -> None:
        nonlocal tried
        tried += 1
        if tried <= 5:
            raise TemporaryError("down", retry_after=FAR)

    monkeypatch.setattr(Leases, "note_circuit", away_at_first)
    async with bench.serving(handle, concurrency=1) as server:
        bench.served(server).circuit._waits = (0.01,)
        await until(lambda: len(noted) == 2, "both are noted")
    assert noted == [None, None]


async def test_failures_of_single_calls_do_not_keep_the_circuit_open(bench: Bench) -> None:
    await bench.append(*(event(f"bad-{n}") for n in range(8)), event("good"))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        if one.call_id != "good":
            raise TemporaryError("this one not", retry_after=FAR)
        got.append(one.call_id)

    async with bench.serving(handle, concurrency=1) as server:
        bench.served(server).circuit._waits = (0.01,)
        await bench.finished()
        assert bench.served(server).circuit.state == "closed"
    assert got == ["good"]
    assert bench.parked() == 8
