"""Logging of every process: to standard error, with the keys of the event."""

import logging
import logging.config
import time
from typing import Any


class Keys(logging.Formatter):
    """Appends the keys of a line's event, and keeps the line in one piece.

    A CallID or a target's error message may contain anything, even line breaks.
    """

    KEYS = ("event", "call", "extension", "handler", "attempt")

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        keys = [f"{key}={getattr(record, key)}" for key in self.KEYS if hasattr(record, key)]
        return printable(f"{line} [{' '.join(keys)}]" if keys else line)


def printable(text: str) -> str:
    """Replace what is not printable, such as a terminal's control characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class Outage:
    """Logs an outage at once, then once a minute, and when it is over.

    A line for every retry would fill the disk in a long outage.

    Args:
        what: the name of what does not answer.
        every: seconds from one line to the next.
    """

    def __init__(self, log: logging.Logger, what: str, every: float = 60.0) -> None:
        self._log = log
        self._what = what
        self._every = every
        self._next: float | None = None  # None: no outage

    def goes_on(self, error: Exception) -> None:
        """Report a failure."""
        now = time.monotonic()
        if self._next is None or now >= self._next:
            self._next = now + self._every
            self._log.error("%s does not answer (%s); trying again", self._what, error)

    def is_over(self) -> None:
        """Report a success."""
        if self._next is not None:
            self._next = None
            self._log.warning("%s answers again", self._what)


# As data, because uvicorn passes it to its worker processes.
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
    """Log Offhook's lines from INFO on, and the libraries' warnings, to standard error."""
    logging.config.dictConfig(CONFIG)
