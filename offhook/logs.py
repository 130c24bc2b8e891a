"""Logging, the same in every process of ours: to standard error, with the keys of the event."""

import logging
import logging.config
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
