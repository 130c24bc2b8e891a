"""`Memory`: what a process remembers for a while, and no more of it than fits."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memory(Generic[K, V]):
    """Values that are forgotten after a time, and the oldest when there are too many.

    Args:
        seconds: how long a value is good.
        size: how many there may be.
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
        """What was kept, while it is good."""
        until, value = self._kept.get(key, (0.0, None))
        return value if self._clock() < until else None

    def keep(self, key: K, value: V, seconds: float | None = None) -> None:
        """Remember it from now on, for its own time if it has one."""
        self._kept.pop(key, None)
        self._kept[key] = (self._clock() + (self._seconds if seconds is None else seconds), value)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)

    def forget(self, key: K) -> None:
        """Remember it no longer."""
        self._kept.pop(key, None)
