"""The handlers that Offhook runs in the benchmarks; the jobs of the peers do the same."""

import os
import time
from functools import cache
from itertools import count
from pathlib import Path

from benchmarks.peers import job
from offhook import CallEvent, Context, PermanentError, TemporaryError


async def nothing(event: CallEvent, context: Context) -> None:
    job.count()


async def wait(event: CallEvent, context: Context) -> None:
    await job.wait()


async def record(event: CallEvent, context: Context) -> None:
    job.record(event.call_id, event.status or "", event.received.timestamp())


async def linger(event: CallEvent, context: Context) -> None:
    await job.linger(event.call_id, event.status or "", event.received.timestamp())


async def again(event: CallEvent, context: Context) -> None:
    """Fail every second first attempt, never twice in a row, so that the circuit stays closed.

    All redeliveries are due at one moment.
    """
    if context.attempt == 1 and next(_first_attempts) % 2:
        raise TemporaryError("not yet", retry_after=_due() - time.monotonic())
    job.count()


_first_attempts = count()


@cache
def _due() -> float:
    """When the redeliveries are due: after the first attempts at all events."""
    return time.monotonic() + float(os.environ["DUE"])


async def refuse(event: CallEvent, context: Context) -> None:
    """Refuse for good while the file `REFUSE` exists."""
    if _refuses():
        raise PermanentError("refused")
    job.count()


def _refuses() -> bool:
    return Path(os.environ["PROGRESS"]).with_name("refuse").exists()
