"""What is appended to the inbox, and what is read from it."""

import zlib
from dataclasses import dataclass
from typing import Any

import msgspec

from offhook.event import CallEvent, from_stored


class Batch(msgspec.Struct, frozen=True):
    """Events of one partition, appended in one step.

    Attributes:
        writer: the process that appends it.
        number: larger than that of the writer's previous batch in this partition.
        marks: one for each event; events with equal marks are repeats.
        events: stored events.
    """

    writer: str
    number: int
    partition: int
    marks: list[str]
    events: list[msgspec.Raw]


MOST_PARTITIONS = 256  # the setting's maximum
CIRCUIT_MS = 60_000  # longest wait between two probes of an open circuit


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One event in a partition. Numbers are consecutive, so that a reader notices a gap."""

    position: bytes
    number: int
    event: CallEvent
    stored: bytes


@dataclass(frozen=True)
class CursorState:
    """How far a handler has come in one partition.

    Attributes:
        lag: number of events that it has not read.
        in_flight: number of events that were read and are neither delivered nor parked.
        lanes: number of parked lanes, each waiting for a redelivery.
        circuit_open: seconds until the next probe while the circuit is open, else None.
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
    """The partition of a call, by its name, `PBX/CALLID`.

    `PBX/CALLID~2`, a second call with this CallID, is in the same partition.
    """
    first = name.partition("~")[0]
    return zlib.crc32(first.encode("utf-8", "surrogatepass")) % partitions


def circuit_seconds(milliseconds: int) -> float:
    """Seconds until the next probe, from the lifetime of the circuit's key; 0 if it is not open."""
    if milliseconds > CIRCUIT_MS:  # the server's clock was set back: probe now, not in an hour
        return 0
    return max(0, milliseconds) / 1000


def read_entries(answer: Any) -> list[Entry]:
    """The entries in the response to a read of a stream."""
    entries = []
    for _, items in answer or ():
        for position, fields in items:
            if fields:  # else it was trimmed while it was pending
                stored = fields[b"e"]
                entries.append(Entry(position, int(fields[b"n"]), from_stored(stored), stored))
    return entries
