"""How long events took from acceptance to delivery: a histogram in Redis, for each partition.

A field of the hash `keys.latency` is the upper bound of a bucket in milliseconds, or `inf`, with
the number of deliveries in it; `sum` is the milliseconds of all.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Milliseconds. A target that is down makes hours.
BOUNDS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 60_000, 600_000, 3_600_000)
_FIELDS = (*map(str, BOUNDS), "inf")
SUM = "sum"


def bucket(milliseconds: int) -> str:
    """The field of the bucket that a latency belongs to."""
    return _FIELDS[bisect_left(BOUNDS, milliseconds)]


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
