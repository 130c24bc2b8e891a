"""`SettleWindows`: when calls count as ended, unless more is heard of them."""

from heapq import heappop, heappush


class SettleWindows:
    """The open settle windows of one partition. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}  # call -> when its window ends
        self._ordered: list[tuple[float, str]] = []  # the same as a heap, with outdated entries

    @property
    def following(self) -> float | None:
        """When to look for windows that have ended; None if none is open."""
        return self._ordered[0][0] if self._ordered else None

    def open(self, name: str, ends: float) -> None:
        """Open a call's window, or change when it ends."""
        self._ends[name] = ends
        heappush(self._ordered, (ends, name))

    def close(self, name: str) -> None:
        """Close a call's window before it ends, if it is open."""
        self._ends.pop(name, None)

    def ended(self, now: float) -> list[str]:
        """Close the windows that have ended. Return their calls."""
        names = []
        while self._ordered and self._ordered[0][0] <= now:
            ends, name = heappop(self._ordered)
            if self._ends.get(name) == ends:  # otherwise the entry is outdated
                del self._ends[name]
                names.append(name)
        return names

    def clear(self) -> None:
        """Close all windows."""
        self._ends.clear()
        self._ordered.clear()
