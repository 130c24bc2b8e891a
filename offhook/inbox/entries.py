"""What is appended to the inbox, and what is read from it."""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from offhook.event import CallEvent, from_stored


class Batch(msgspec.Struct, frozen=True, omit_defaults=True):
    """Events of one partition, appended in one step.

    Attributes:
        writer: the process that appends it.
        number: larger than that of the writer's previous batch in this partition.
        marks: one for each event; events with equal marks are repeats.
        events: stored events.
        tenants: whose events they are, one for each; empty: all are the operator's.
    """

    writer: str
    number: int
    partition: int
    marks: list[str]
    events: list[msgspec.Raw]
    tenants: list[str] = []

    def only(self, indices: Sequence[int]) -> "Batch":
        """The batch with only these events."""
        if len(indices) == len(self.events):
            return self
        return msgspec.structs.replace(
            self,
            marks=[self.marks[index] for index in indices],
            events=[self.events[index] for index in indices],
            tenants=[self.tenants[index] for index in indices] if self.tenants else [],
        )


MOST_PARTITIONS = 256  # the setting's maximum
CIRCUIT_MS = 60_000  # longest wait between two probes of an open circuit


@dataclass(frozen=True)
class HandlerState:
    """How far a handler has come in one partition.

    Attributes:
        lag: number of events that it has not read.
        in_flight: number of events that were read and are neither finished nor parked.
        since: when the first of all these was accepted, in milliseconds since 1970; 0 without any.
    """

    lag: int
    in_flight: int
    since: int
    delivered: int
    failed: int
    dead: int


@dataclass
class StreamFigures:
    """A tenant's stream in one partition.

    Attributes:
        last: number of its last event, which is how many it ever had.
        length: how many the inbox has.
    """

    last: int
    length: int
    handlers: dict[str, HandlerState]


def events_of(entries: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> Iterator[CallEvent]:
    """The events of these entries, without those that cannot be read: workers set them aside."""
    for _, fields in entries:
        try:
            yield from_stored(fields[b"e"])
        except (ValueError, RecursionError):
            continue


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
