"""Small scenarios, in which a process crashes at every single command, and at every pair."""

from collections.abc import Iterator
from itertools import combinations

from offhook.settings import HandlerSettings
from tests.simulation.world import BOTH, RAW, Plan

_RETRIES = HandlerSettings(
    use="simulated", events=BOTH, concurrency=2, timeout=2.0, retry=[1.0], start="earliest"
)
_ONCE = HandlerSettings(
    use="simulated", events=RAW, concurrency=1, timeout=2.0, retry=[], start="earliest"
)

# Scenario -> what it is about, and its seed.
SCENARIOS: dict[str, tuple[Plan, int]] = {
    "deliver": (Plan(handlers={"h": _RETRIES}, calls=1, events=3, active=0.8), 1),
    "redeliver": (Plan(handlers={"h": _RETRIES}, calls=1, events=3, active=1.6, failing=0.5), 2),
    "behind": (
        Plan(handlers={"a": _ONCE, "b": _RETRIES}, calls=2, active=0.8, slow=1.0, room=2),
        3,
    ),
    "two": (
        Plan(partitions=2, servers=2, handlers={"h": _ONCE}, active=1.2, troubles=("stop",)),
        4,
    ),
    "journal": (Plan(handlers={"h": _ONCE}, journal=True, active=1.6, troubles=("down",)), 5),
}
_HOW = ("crash before", "crash after")


def singles(commands: int) -> Iterator[dict[int, str]]:
    """A crash at each command, before it and after it."""
    for number in range(1, commands + 1):
        for how in _HOW:
            yield {number: how}


def pairs(commands: int) -> Iterator[dict[int, str]]:
    """Two crashes, at each pair of commands."""
    for first, second in combinations(range(1, commands + 1), 2):
        yield {first: _HOW[second % 2], second: _HOW[first % 2]}
