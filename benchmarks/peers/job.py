"""What the workers of all engines do with an event, and how whoever watches sees it.

`PROGRESS` names a file: eight bytes, how many were delivered. `RECORDS` names another one: a line
for each delivery, with the call, the event's number, when it was accepted and delivered.
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
    """One more is delivered."""
    global _done, _progress
    if _progress is None:
        with Path(os.environ["PROGRESS"]).open("r+b") as file:
            _progress = mmap.mmap(file.fileno(), 8)
        (_done,) = struct.unpack("<Q", _progress[:])
    _done += 1
    _progress[:] = struct.pack("<Q", _done)


async def wait() -> None:
    """A delivery that takes 100 ms."""
    await asyncio.sleep(_WAIT)
    count()


def wait_here() -> None:
    """The same for an engine without asyncio."""
    time.sleep(_WAIT)
    count()


def record(call: str, number: str, accepted: float) -> None:
    """Write down that it is delivered."""
    global _records
    if _records < 0:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        _records = os.open(os.environ["RECORDS"], flags, 0o600)
    os.write(_records, f"{call} {number} {accepted!r} {time.time()!r}\n".encode())


async def linger(call: str, number: str, accepted: float) -> None:
    """The other side takes its time, now more, now less, and has it then."""
    await asyncio.sleep(random.uniform(0, 0.02))
    record(call, number, accepted)


def linger_here(call: str, number: str, accepted: float) -> None:
    """The same for an engine without asyncio."""
    time.sleep(random.uniform(0, 0.02))
    record(call, number, accepted)


def handle(event: dict[str, str]) -> None:
    """What `DO` says, for an engine without asyncio."""
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
    """What `DO` says."""
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
