"""Handlers that block, crash or hoard memory, and record what they deliver all the same."""

import asyncio
import os
import signal
import time

from offhook import CallEvent, Context
from tests.recorders import record

hoard: list[bytes] = []


async def block_once(event: CallEvent, context: Context) -> None:
    """Block the event loop for longer than a process may, at the first attempt of one event."""
    if event.parameters["n"] == "3" and event.call_id.endswith("-7") and context.attempt == 1:
        time.sleep(30)
    await record(event, context)


async def crash_always(event: CallEvent, context: Context) -> None:
    """End the process with a signal at every attempt of one event."""
    if event.parameters["n"] == "3" and event.call_id.endswith("-7"):
        os.kill(os.getpid(), signal.SIGSEGV)
        await asyncio.sleep(1)
    await record(event, context)


async def pause_a_little(event: CallEvent, context: Context) -> None:
    """Keep all others waiting for a moment, at one event."""
    if event.parameters["n"] == "3" and event.call_id.endswith("-7"):
        time.sleep(0.4)
    await record(event, context)


async def keep_megabytes(event: CallEvent, context: Context) -> None:
    """Never let go of ten megabytes an event."""
    hoard.append(b"x" * 10_000_000)
    await record(event, context)


def hang(event: CallEvent, context: Context) -> None:
    """Never return from some events."""
    if event.parameters["n"] == "0" and context.attempt == 1:
        time.sleep(3600)
