"""The audit of an installation on a cluster: what was lost or out of order, or served by two."""

from collections import defaultdict
from collections.abc import Collection, Container, Mapping
from pathlib import Path
from typing import Any

import redis

from offhook.event import from_stored
from offhook.inbox import keys
from tests.chaos.audit import Event

HANDLERS = "fast", "flaky"
MOST_CHANGES = 6  # of the process that serves a partition, in ten seconds


def audit(
    output: Path, client: redis.Redis, partitions: int, accepted: Mapping[Event, float]
) -> list[str]:
    """What is wrong: events that were lost or out of order, and partitions with two servers.

    Args:
        output: what the handlers got, a file for each.
        partitions: the largest number that there was.
        accepted: events that were answered 200, and when.
    """
    found = []
    for name in HANDLERS:
        order = _order(output / name, accepted)
        lost = _lost(order, accepted)
        wrong = [call for call, numbers in order.items() if numbers != sorted(numbers)]
        print(f"{name}: {len(accepted)} accepted, {len(lost)} lost, {len(wrong)} out of order")
        found += [f"{name}: lost {lost[:5]}"] if lost else []
        for call in wrong[:5]:
            at = " ".join(f"{n}@{accepted[call, n]:.3f}" for n in order[call])
            found.append(f"{name}: out of order {call}: accepted {at}")
    places = _places(client, partitions)
    several = [call for call, partitions in places.items() if len(partitions) > 1]
    found += [f"calls in several partitions: {several[:5]}"] if several else []
    changes = _changes(output / "fast", places)
    print(f"the process that serves a partition changed at most {changes} times in ten seconds")
    if changes > MOST_CHANGES:
        found.append(f"two processes served a partition by turns: {changes} changes")
    return found


def all_delivered(output: Path, accepted: Collection[Event]) -> bool:
    """Whether each handler got each of these events."""
    return not any(_lost(_order(output / name, accepted), accepted) for name in HANDLERS)


def _order(path: Path, accepted: Container[Event]) -> dict[str, list[int]]:
    """The accepted events that a handler got, of each call, in the order in which they came.

    Those that were not answered may have come at any time.
    """
    order: dict[str, list[int]] = defaultdict(list)
    for line in path.read_text().splitlines():
        call, n = line.split()[1:3]
        if (call, int(n)) in accepted and int(n) not in order[call]:
            order[call].append(int(n))
    return order


def _lost(order: Mapping[str, list[int]], accepted: Collection[Event]) -> list[Event]:
    return [event for event in accepted if event[1] not in order.get(event[0], ())]


def _places(client: redis.Redis, partitions: int) -> dict[str, set[int]]:
    """The partitions that have events of each call."""
    found: dict[str, set[int]] = defaultdict(set)
    for partition in range(partitions):
        entries: Any = client.xrange(keys.inbox(partition))
        for _, fields in entries:
            found[from_stored(fields[b"e"]).call_id].add(partition)
    return found


def _changes(path: Path, places: Mapping[str, set[int]]) -> int:
    """How often a partition's deliveries went to another process within ten seconds, at most.

    Two that served it at once would take turns all the time.
    """
    last: dict[int, str] = {}
    changes: dict[int, list[float]] = defaultdict(list)
    most = 0
    for line in path.read_text().splitlines():
        _, call, _, pid, at = line.split()
        for partition in places.get(call, ()):
            if last.setdefault(partition, pid) != pid:
                last[partition] = pid
                since = float(at) - 10
                changes[partition] = [each for each in changes[partition] if each > since]
                changes[partition].append(float(at))
                most = max(most, len(changes[partition]))
    return most
