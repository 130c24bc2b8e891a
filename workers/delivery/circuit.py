"""The circuit: stops deliveries to a target that keeps failing, and probes whether it recovered."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

CONSECUTIVE = 5  # failures in a row that open the circuit
RECENT = 20  # number of last deliveries to consider
MOSTLY = 0.8  # share of failures among these that opens the circuit, too
WAITS = (5.0, 10.0, 20.0, 40.0, 60.0)  # seconds until the 1st, 2nd, ... probe

State = Literal["closed", "open", "half-open"]


class Circuit:
    """Closed: deliveries may start. Open: none may. Half-open: one may, as a probe.

    Args:
        clock: a monotonic clock, in seconds.
        waits: seconds to stay open for each opening in a row; the last one repeats.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, waits: Sequence[float] = WAITS
    ) -> None:
        self._clock = clock
        self._waits = waits
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._openings = 0
        self._probe_at = 0.0
        self.state: State = "closed"
        self.untroubled = True  # closed, and nothing has failed recently

    @property
    def probe_in(self) -> float:
        """Seconds until the next probe may start."""
        return max(0.0, self._probe_at - self._clock())

    def try_probe(self) -> bool:
        """Return whether a probe may start now. The caller must then `record` its outcome."""
        if self.state != "open" or self._clock() < self._probe_at:
            return False
        self.state = "half-open"
        return True

    def release_probe(self) -> None:
        """Take back a probe that was not made."""
        if self.state == "half-open":
            self.state = "open"

    def record(self, *, ok: bool) -> float | None:
        """Record the outcome of a delivery. Return the seconds to stay open if this opened it."""
        self._recent.append(ok)
        self.untroubled = self.state == "closed" and all(self._recent)
        if self.state == "half-open":
            if ok:
                self._close()
                return None
            return self.open()
        if self.state == "open" or ok:
            return None  # open: the delivery began before it opened
        last = list(self._recent)
        in_a_row = len(last) >= CONSECUTIVE and not any(last[-CONSECUTIVE:])
        mostly = len(last) == RECENT and last.count(False) >= RECENT * MOSTLY
        return self.open() if in_a_row or mostly else None

    def open(self, seconds: float | None = None) -> float:
        """Open the circuit for the given seconds or for the next wait. Return the seconds."""
        if seconds is None:
            seconds = self._waits[min(self._openings, len(self._waits) - 1)]
            self._openings += 1
        self.state = "open"
        self.untroubled = False
        self._probe_at = self._clock() + seconds
        return seconds

    def _close(self) -> None:
        self.state = "closed"
        self.untroubled = True
        self._openings = 0
        self._recent.clear()
