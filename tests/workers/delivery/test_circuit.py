"""The circuit: opens on failures, probes with one delivery, closes on success."""

import asyncio

import pytest

from workers.delivery.circuit import CONSECUTIVE, RECENT, WAITS, Circuit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Circuit:
    circuit = Circuit(clock)
    for _ in range(CONSECUTIVE):
        circuit.record(ok=False)
    assert circuit.state == "open"
    return circuit


def test_circuit_opens_after_failures_in_a_row() -> None:
    circuit = Circuit()
    for _ in range(CONSECUTIVE - 1):
        assert circuit.record(ok=False) is None
    assert circuit.record(ok=True) is None
    for _ in range(CONSECUTIVE - 1):
        assert circuit.record(ok=False) is None
    assert circuit.state == "closed"
    assert circuit.record(ok=False) == WAITS[0]


def test_circuit_opens_when_most_deliveries_fail() -> None:
    circuit = Circuit()
    for ok in [False, False, False, False, True] * (RECENT // 5):  # never five in a row
        assert circuit.record(ok=ok) is None
    assert circuit.record(ok=False) == WAITS[0]


async def test_open_circuit_lets_exactly_one_probe_pass() -> None:
    clock = Clock()
    circuit = opened(clock)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(circuit.passage(), 0.02)
    clock.now += WAITS[0]
    await asyncio.wait_for(circuit.passage(), 0.02)  # the probe
    assert circuit.state == "half-open"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(circuit.passage(), 0.02)


async def test_successful_probe_closes_the_circuit() -> None:
    clock = Clock()
    circuit = opened(clock)
    clock.now += WAITS[0]
    await circuit.passage()
    waiting = [asyncio.ensure_future(circuit.passage()) for _ in range(3)]
    await asyncio.sleep(0)
    circuit.record(ok=True)
    await asyncio.wait_for(asyncio.gather(*waiting), 1)
    assert circuit.state == "closed"


async def test_each_failed_probe_lengthens_the_wait() -> None:
    clock = Clock()
    circuit = opened(clock)
    waits = []
    clock.now += WAITS[0]
    for _ in range(len(WAITS) + 1):
        await circuit.passage()
        wait = circuit.record(ok=False)
        assert wait is not None
        waits.append(wait)
        clock.now += wait
    assert waits == [*WAITS[1:], WAITS[-1], WAITS[-1]]


def test_delivery_that_began_before_does_not_close_the_circuit() -> None:
    circuit = opened(Clock())
    assert circuit.record(ok=True) is None
    assert circuit.state == "open"
