"""SIGTERM to the process of the tests, as if a supervisor stopped a worker."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_after(seconds: float) -> Iterator[None]:
    """Send it after this time, unless the block has ended."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
