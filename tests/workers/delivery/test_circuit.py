"""The circuit: opens on failures, probes with one delivery, closes on success."""

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


def test_open_circuit_lets_exactly_one_probe_pass() -> None:
    clock = Clock()
    circuit = opened(clock)
    assert not circuit.try_probe()
    clock.now += WAITS[0] - 1
    assert (circuit.try_probe(), circuit.probe_in) == (False, 1)
    clock.now += 1
    assert circuit.try_probe()
    assert circuit.state == "half-open"
    assert not circuit.try_probe()


def test_probe_that_was_not_made_leaves_its_place_to_another() -> None:
    clock = Clock()
    circuit = opened(clock)
    clock.now += WAITS[0]
    assert circuit.try_probe()
    circuit.release_probe()
    assert circuit.state == "open"
    assert circuit.try_probe()


def test_successful_probe_closes_the_circuit() -> None:
    clock = Clock()
    circuit = opened(clock)
    clock.now += WAITS[0]
    assert circuit.try_probe()
    assert circuit.record(ok=True) is None
    assert circuit.state == "closed"
    assert circuit.untroubled
    for _ in range(CONSECUTIVE - 1):  # earlier failures no longer count
        assert circuit.record(ok=False) is None


def test_each_failed_probe_lengthens_the_wait() -> None:
    clock = Clock()
    circuit = opened(clock)
    waits = []
    clock.now += WAITS[0]
    for _ in range(len(WAITS) + 1):
        assert circuit.try_probe()
        wait = circuit.record(ok=False)
        assert wait is not None
        waits.append(wait)
        clock.now += wait
    assert waits == [*WAITS[1:], WAITS[-1], WAITS[-1]]


def test_delivery_that_began_before_does_not_close_the_circuit() -> None:
    circuit = opened(Clock())
    assert circuit.record(ok=True) is None
    assert circuit.state == "open"
