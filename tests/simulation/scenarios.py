"""Small scenarios, with a fault at every single command, and at every pair of commands."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from offhook.settings import HandlerSettings
from tests.simulation.faults import CRASHES, KINDS
from tests.simulation.world import BOTH, RAW, Plan

_RETRIES = HandlerSettings(
    use="simulated", events=BOTH, concurrency=2, timeout=2.0, retry=[1.0], start="earliest"
)
_ONCE = HandlerSettings(
    use="simulated", events=RAW, concurrency=1, timeout=2.0, retry=[], start="earliest"
)

_FROM_NOW = _ONCE.model_copy(update={"start": "now"})

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
    # Dead letters are retried.
    "retry": (
        Plan(
            handlers={"h": _ONCE},
            calls=1,
            events=3,
            active=2.0,
            failing=0.6,
            troubles=("retry",),
        ),
        23,
    ),
    # A handler moves out and comes back, with deliveries before, meanwhile and after.
    "move": (
        Plan(
            handlers={"h": _ONCE},
            pools=True,
            calls=3,
            events=2,
            active=4.0,
            troubles=("move out",),
        ),
        38,
    ),
    # A handler is paused and resumed while a redelivery waits.
    "pause": (
        Plan(
            handlers={"h": _RETRIES},
            calls=1,
            events=3,
            active=1.6,
            failing=0.5,
            troubles=("pause",),
        ),
        52,
    ),
    "migrate": (
        Plan(handlers={"h": _RETRIES}, calls=1, events=2, active=0.8, migrates=True),
        7,
    ),
    # Equal calls of the operator and two tenants; one handler gets all.
    "tenants": (
        Plan(
            handlers={
                "h": _ONCE,
                "a/h": _FROM_NOW,
                "b/h": _FROM_NOW,
                "all": _RETRIES.model_copy(update={"tenants": "all"}),
            },
            tenants=("a", "b"),
            calls=1,
            events=2,
            active=0.8,
            failing=0.3,
        ),
        11,
    ),
    "journal": (Plan(handlers={"h": _ONCE}, journal=True, active=1.6, troubles=("down",)), 5),
}


def singles(commands: int, kinds: Sequence[str] = KINDS) -> Iterator[dict[int, str]]:
    """A fault of each of these kinds at each command."""
    for number in range(1, commands + 1):
        for kind in kinds:
            yield {number: kind}


def pairs(commands: int) -> Iterator[dict[int, str]]:
    """Two faults, at each pair of commands: any of them, and then a crash."""
    for first, second in combinations(range(1, commands + 1), 2):
        kind = KINDS[(first + 2 * second) % len(KINDS)]
        yield {first: kind, second: CRASHES[first % 2]}
