"""What a process of ours does first: end with its parent, and log the same way as the others."""

import ctypes
import logging
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent ends, however that ends.

    Linux only; elsewhere a worker whose supervisor was killed ends with its next job.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class _Keys(logging.Formatter):
    """Appends the keys of the event that a line is about."""

    KEYS = ("event", "call", "extension", "handler", "attempt")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        keys = [f"{key}={getattr(record, key)}" for key in self.KEYS if hasattr(record, key)]
        return f"{line} [{' '.join(keys)}]" if keys else line


def log_to_stderr(level: str = "INFO") -> None:
    """Log lines of ours from `level` on, and warnings of the libraries, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Keys("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("offhook").setLevel(level)
