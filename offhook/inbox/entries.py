"""What goes into the inbox and what comes out of it."""

import zlib
from dataclasses import dataclass
from typing import Any

import msgspec

from offhook.event import CallEvent, from_stored


class Batch(msgspec.Struct, frozen=True):
    """Events of one partition, appended in one step.

    Attributes:
        writer: who appends it, a receiver process.
        number: larger than that of the writer's batch before, in this partition.
        marks: one for each event, equal for what is a repeat.
        events: stored events.
    """

    writer: str
    number: int
    partition: int
    marks: list[str]
    events: list[msgspec.Raw]


CALL_LOG = "calls"  # the cursor from which calls are put together; no handler has this name
MOST_PARTITIONS = 256  # as many as the setting allows
CIRCUIT_MS = 60_000  # the longest that a circuit is open between two probes


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One event as it lies in a partition: `position` is its place there, `number` says that no
    other one is between it and the one before."""

    position: bytes
    number: int
    event: CallEvent
    stored: bytes


@dataclass(frozen=True)
class CursorState:
    """How far a handler has got in one partition.

    Attributes:
        lag: events not yet read by it.
        in_flight: events read and not yet delivered or parked.
        lanes: parked lanes, each waiting for a redelivery.
        circuit_open: seconds until the next probe while its circuit is open, else None.
    """

    lag: int
    in_flight: int
    lanes: int
    circuit_open: float | None
    delivered: int
    failed: int
    dead: int


def partition_of(event: CallEvent, partitions: int) -> int:
    """The partition that holds all events of this call."""
    return partition_of_call(event.call, partitions)


def partition_of_call(name: str, partitions: int) -> int:
    """The partition of a call, by its name, `PBX/CALLID`."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) % partitions


def circuit_seconds(milliseconds: int) -> float:
    """Seconds until the next probe, of a circuit whose key lives so long; 0: it is not open."""
    if milliseconds > CIRCUIT_MS:  # the server's clock was set back: better a probe than an hour
        return 0
    return max(0, milliseconds) / 1000


def read_entries(answer: Any) -> list[Entry]:
    """The entries in the answer to a read of a stream."""
    entries = []
    for _, items in answer or ():
        for position, fields in items:
            if fields:  # else it was forgotten while it was pending: there is nothing to deliver
                stored = fields[b"e"]
                entries.append(Entry(position, int(fields[b"n"]), from_stored(stored), stored))
    return entries
