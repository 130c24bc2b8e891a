"""The handlers of a storm: they write down what they get, and when."""

import asyncio
import os
import random
import time
from pathlib import Path

from offhook import CallEvent, Context, TemporaryError


def _a_moment() -> float:
    """So that there is something to be killed in the middle of."""
    return random.uniform(0, 0.03)


def _write(event: CallEvent, context: Context) -> None:
    path = Path(os.environ["RECORDINGS"]) / context.handler
    with path.open("a") as file:  # one short line in append mode is written in one piece
        file.write(f"{event.id} {event.call_id} {event.parameters['n']} {time.time()}\n")


async def record(event: CallEvent, context: Context) -> None:
    await asyncio.sleep(_a_moment())
    _write(event, context)
    await asyncio.sleep(_a_moment())


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
    """The second attempt of a call's first event lasts, so that it can be killed; no other does."""
    first = event.parameters["n"] == "0"
    if first and context.attempt == 1:
        raise TemporaryError("not now")
    if first and context.attempt == 2:
        (Path(os.environ["RECORDINGS"]) / f"lingering-{context.handler}").touch()
        await asyncio.sleep(60)
    _write(event, context)


async def fail_now_and_then(event: CallEvent, context: Context) -> None:
    """Every fifth call waits once for a redelivery, and all that comes meanwhile behind it."""
    chosen = event.call_id.endswith(("0", "5"))
    if chosen and event.parameters["n"] == "0" and context.attempt == 1:
        raise TemporaryError("not now")
    _write(event, context)
