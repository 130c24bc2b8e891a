"""The job that the workers of all engines run for an event, and how an observer sees it.

The file `PROGRESS` has eight bytes: the number of deliveries. The file `RECORDS` has a line for
each delivery: the call, the number of the event, the times when it was accepted and delivered.
"""

import asyncio
import mmap
import os
import random
import struct
import time
from pathlib import Path
from typing import Any

_WAIT = 0.1  # seconds
_done = 0
_progress: "mmap.mmap | None" = None
_records = -1


def count() -> None:
    """Count a delivery."""
    global _done, _progress
    if _progress is None:
        with Path(os.environ["PROGRESS"]).open("r+b") as file:
            _progress = mmap.mmap(file.fileno(), 8)
        (_done,) = struct.unpack("<Q", _progress[:])
    _done += 1
    _progress[:] = struct.pack("<Q", _done)


async def wait() -> None:
    """Take 100 ms for a delivery."""
    await asyncio.sleep(_WAIT)
    count()


def wait_here() -> None:
    """Do the same in an engine without asyncio."""
    time.sleep(_WAIT)
    count()


def record(call: str, number: str, accepted: float) -> None:
    """Record a delivery."""
    global _records
    if _records < 0:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        _records = os.open(os.environ["RECORDS"], flags, 0o600)
    os.write(_records, f"{call} {number} {accepted!r} {time.time()!r}\n".encode())


async def linger(call: str, number: str, accepted: float) -> None:
    """Record a delivery to a target that takes 0 to 20 ms."""
    await asyncio.sleep(random.uniform(0, 0.02))
    record(call, number, accepted)


def linger_here(call: str, number: str, accepted: float) -> None:
    """Do the same in an engine without asyncio."""
    time.sleep(random.uniform(0, 0.02))
    record(call, number, accepted)


def handle(event: dict[str, str]) -> None:
    """Run the job named by `DO` in an engine without asyncio."""
    do = os.environ["DO"]
    if do == "nothing":
        count()
    elif do == "wait":
        wait_here()
    elif do == "linger":
        linger_here(event["CallID"], event["CallStatus"], float(event["accepted"]))
    else:
        record(event["CallID"], event["CallStatus"], float(event["accepted"]))


async def handle_async(event: dict[str, str]) -> None:
    """Run the job named by `DO`."""
    do = os.environ["DO"]
    if do == "nothing":
        count()
    elif do == "wait":
        await wait()
    elif do == "post":
        await _post(event)
    elif do == "linger":
        await linger(event["CallID"], event["CallStatus"], float(event["accepted"]))
    else:
        record(event["CallID"], event["CallStatus"], float(event["accepted"]))


_session: Any = None


async def _post(event: dict[str, str]) -> None:
    global _session
    import aiohttp  # not every engine's environment has it

    if _session is None:
        _session = aiohttp.ClientSession()
    async with _session.post(os.environ["TARGET"], json=event) as answer:
        answer.raise_for_status()
