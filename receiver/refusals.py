"""`Refusals`: counts what was refused, by cause, so that a flood is one log line a minute.

Also what was accepted: for metrics.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from offhook.inbox.refused import SENTENCES, CallbackOutcome, Cause

log = logging.getLogger("offhook.receiver")

_NOTE_FOR = 600.0  # seconds after the last one in which `/health/ready` mentions it


class Refusals:
    """What this process has refused since it started.

    Args:
        log_every: seconds from one log line about a cause to the next.
    """

    def __init__(self, log_every: float = 60.0) -> None:
        self._log_every = log_every
        self._total = Counter[str]()
        self._logged = Counter[str]()
        self._unstored: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by tenant
        self._latest: dict[str, tuple[float, str]] = {}  # when, and of whom
        self._log_at: dict[str, float] = {}

    def count(self, cause: Cause, who: str, tenant: str = "") -> None:
        """Count one.

        Args:
            who: an address or an extension, for the log.
            tenant: whose callback it was.
        """
        now = time.monotonic()
        self._total[cause] += 1
        self._unstored[tenant][cause] += 1
        self._latest[cause] = now, who
        if now >= self._log_at.get(cause, 0.0):
            self._log(cause, now)

    def note(self, outcome: CallbackOutcome, number: int = 1) -> None:
        """Count what else became of callbacks: it is not logged."""
        self._unstored[""][outcome] += number

    def log_the_rest(self) -> None:
        """Log what was counted since the last lines, if their minute is over."""
        now = time.monotonic()
        for cause, total in self._total.items():
            if total > self._logged[cause] and now >= self._log_at[cause]:
                self._log(cause, now)

    def notes(self) -> Iterator[str]:
        """Yield a sentence for each cause of the last minutes."""
        now = time.monotonic()
        for cause, total in self._total.items():
            if now - self._latest[cause][0] < _NOTE_FOR:
                yield f"refused since the start: {total} {SENTENCES[cause]}"

    def unstored(self) -> dict[str, dict[str, int]]:
        """Return what was counted since the last `stored`, by tenant, and by cause or outcome."""
        return {tenant: dict(counts) for tenant, counts in self._unstored.items()}

    def stored(self, tenant: str, counts: Mapping[str, int]) -> None:
        """Remember that these counts of a tenant are stored."""
        left = self._unstored[tenant]
        left.subtract(counts)
        if not +left:
            del self._unstored[tenant]

    def _log(self, cause: str, now: float) -> None:
        count = self._total[cause] - self._logged[cause]
        self._logged[cause] = self._total[cause]
        self._log_at[cause] = now + self._log_every
        log.warning("refused: %s %s (last: %s)", count, SENTENCES[cause], self._latest[cause][1])
