"""`TtlCache`: values that a process caches for a limited time."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TtlCache(Generic[K, V]):
    """Values that expire; the oldest goes when there are too many.

    Args:
        seconds: lifetime of a value.
        size: maximum number of values.
        clock: seconds that never jump.
    """

    def __init__(
        self, seconds: float, size: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._size = size
        self._clock = clock
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value; None if it is missing or has expired."""
        until, value = self._kept.get(key, (0.0, None))
        return value if self._clock() < until else None

    def keep(self, key: K, value: V, seconds: float | None = None) -> None:
        """Store a value, with its own lifetime if given."""
        self.forget(key)
        self._kept[key] = (self._clock() + (self._seconds if seconds is None else seconds), value)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)

    def forget(self, key: K) -> None:
        """Remove a value, if it is there."""
        self._kept.pop(key, None)
