"""SIGTERM to the process of the tests, as whoever stops a worker sends it."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_after(seconds: float) -> Iterator[None]:
    """Send it then, unless what is done here has ended, well or not."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
