"""Handlers for a storm: they record what they get, and when."""

import asyncio
import os
import random
import signal
import time
from pathlib import Path

from offhook import CallEvent, Context, TemporaryError


def _a_moment() -> float:
    """Last for a moment, so that a delivery can be killed in the middle."""
    return random.uniform(0, 0.03)


def _write(event: CallEvent, context: Context) -> None:
    path = Path(os.environ["RECORDINGS"]) / context.handler.replace("/", "~")
    with path.open("a") as file:  # a short line in append mode is written atomically
        file.write(f"{event.id} {event.call_id} {event.parameters['n']} {time.time()}\n")


async def record(event: CallEvent, context: Context) -> None:
    await asyncio.sleep(_a_moment())
    _write(event, context)
    await asyncio.sleep(_a_moment())


async def record_at_once(event: CallEvent, context: Context) -> None:
    _write(event, context)


async def misbehave_when_asked(event: CallEvent, context: Context) -> None:
    """Block the process, or end it, if a file `block-HANDLER` or `crash-HANDLER` asks for it."""
    asked = Path(os.environ["RECORDINGS"])
    if _taken(asked / f"block-{context.handler}"):
        time.sleep(30)
    if _taken(asked / f"crash-{context.handler}"):
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(1)
    _write(event, context)


def _taken(path: Path) -> bool:
    """Delete a file. Return whether it was there; one process gets it."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def record_in_thread(event: CallEvent, context: Context) -> None:
    time.sleep(_a_moment())
    _write(event, context)
    time.sleep(_a_moment())


async def fail_at_random(event: CallEvent, context: Context) -> None:
    await asyncio.sleep(_a_moment())
    if random.random() < 0.015:
        raise TemporaryError("not now")
    _write(event, context)


async def linger_when_redelivered(event: CallEvent, context: Context) -> None:
    """Make the first redelivery of a call's first event last, so that it can be killed."""
    first = event.parameters["n"] == "0"
    begun = Path(os.environ["RECORDINGS"]) / f"lingering-{context.handler}"
    if first and context.attempt == 1:
        raise TemporaryError("not now")
    if first and context.attempt == 2 and not begun.exists():
        begun.touch()
        await asyncio.sleep(60)
    _write(event, context)


async def fail_now_and_then(event: CallEvent, context: Context) -> None:
    """Park every fifth call for one redelivery, with all its later events behind it."""
    chosen = event.call_id.endswith(("0", "5"))
    if chosen and event.parameters["n"] == "0" and context.attempt == 1:
        raise TemporaryError("not now")
    _write(event, context)
