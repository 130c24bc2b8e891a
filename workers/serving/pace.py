"""`Pace`: how many entries a handler finishes in a second, of late."""

import time
from collections import deque

_WINDOW = 0.25  # seconds


class Pace:
    """Counts what a handler finishes.

    Attributes:
        finished: number of entries that have left the memory.
    """

    __slots__ = ("_before", "_since", "_windows", "finished")

    def __init__(self) -> None:
        self.finished = 0
        self._before, self._since = 0, 0.0
        self._windows: deque[float] = deque(maxlen=2)

    def per_second(self) -> float | None:
        """The entries a second, the best of two windows between looks; None until that is known."""
        now = time.monotonic()
        seconds = now - self._since
        if seconds > 2 * _WINDOW:  # nothing has looked lately
            self._windows.clear()
        elif seconds > _WINDOW:
            self._windows.append((self.finished - self._before) / seconds)
        if seconds > _WINDOW:
            self._before, self._since = self.finished, now
        return max(self._windows) if len(self._windows) == 2 else None
