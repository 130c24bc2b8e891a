"""How long events took from acceptance to delivery: a histogram in Redis, for each partition.

A field of the hash `keys.latency` is the upper bound of a bucket in milliseconds, or `inf`, with
the number of deliveries in it; `sum` is the milliseconds of all.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

# Milliseconds. A target that is down makes hours.
BOUNDS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 60_000, 600_000, 3_600_000)
_FIELDS = (*map(str, BOUNDS), "inf")
SUM = "sum"


class Latencies:
    """Latencies that are still to be added to those in Redis."""

    __slots__ = ("_buckets", "_sum")

    def __init__(self) -> None:
        self._buckets = [0] * len(_FIELDS)
        self._sum = 0

    def add(self, accepted: datetime, delivered: float) -> None:
        """Note a delivery: when its event was accepted, and the delivery in seconds since 1970."""
        latency = int((delivered - accepted.timestamp()) * 1000)
        self._buckets[bisect_left(BOUNDS, latency)] += 1
        if latency > 0:  # else the clock was set back
            self._sum += latency

    def take(self) -> list[tuple[str, int]]:
        """Field and number to add, and begin anew."""
        found = [(name, n) for name, n in zip(_FIELDS, self._buckets, strict=True) if n]
        if self._sum:
            found.append((SUM, self._sum))
        self._buckets, self._sum = [0] * len(_FIELDS), 0
        return found


@dataclass(frozen=True)
class Histogram:
    """Latencies.

    Attributes:
        buckets: number of deliveries in each, those of `BOUNDS` and one more.
        seconds: of all of them.
    """

    buckets: tuple[int, ...]
    seconds: float

    @classmethod
    def of(cls, stored: Iterable[Mapping[bytes, bytes]]) -> "Histogram":
        """The sum of what partitions have stored."""
        found = list(stored)

        def total(field: str) -> int:
            return sum(int(each.get(field.encode(), 0)) for each in found)

        return cls(tuple(map(total, _FIELDS)), total(SUM) / 1000)
