"""Logging, the same in every process of ours: to standard error, with the keys of the event."""

import logging
import logging.config
import time
from typing import Any


class Keys(logging.Formatter):
    """Appends the keys of the event that a line is about, and keeps it one line.

    A CallID or an error of the other side may hold anything, line ends too.
    """

    KEYS = ("event", "call", "extension", "handler", "attempt")

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        keys = [f"{key}={getattr(record, key)}" for key in self.KEYS if hasattr(record, key)]
        return printable(f"{line} [{' '.join(keys)}]" if keys else line)


def printable(text: str) -> str:
    """Text from outside, without what a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class Outage:
    """Tells that something does not answer: at once, then once a minute, and when it is over.

    Whoever tries again every second would fill a disk with an outage that nobody watches.

    Args:
        log: where to.
        what: what does not answer.
        every: seconds from one line to the next.
    """

    def __init__(self, log: logging.Logger, what: str, every: float = 60.0) -> None:
        self._log = log
        self._what = what
        self._every = every
        self._next: float | None = None  # None: it answers

    def goes_on(self, error: Exception) -> None:
        """It did not answer, for this reason."""
        now = time.monotonic()
        if self._next is None or now >= self._next:
            self._next = now + self._every
            self._log.error("%s does not answer (%s); trying again", self._what, error)

    def is_over(self) -> None:
        """It answered."""
        if self._next is not None:
            self._next = None
            self._log.warning("%s answers again", self._what)


# As data, because uvicorn hands it to the processes that it starts.
CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "keys": {"()": Keys, "format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "keys"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    "loggers": {"offhook": {"level": "INFO"}},
}


def log_to_stderr() -> None:
    """Log lines of ours from INFO on, and warnings of the libraries, to standard error."""
    logging.config.dictConfig(CONFIG)
