"""Handlers that record their events in files, for tests that count and compare."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

from offhook import CallEvent, Context, PermanentError, TemporaryError


def _write(event: CallEvent, context: Context) -> None:
    path = Path(os.environ["RECORDINGS"]) / context.handler
    with path.open("a") as file:  # a short line in append mode is written atomically
        file.write(f"{event.id} {event.call_id} {event.parameters['n']}\n")


async def record(event: CallEvent, context: Context) -> None:
    _write(event, context)


async def record_process(event: CallEvent, context: Context) -> None:
    path = Path(os.environ["RECORDINGS"]) / context.handler
    with path.open("a") as file:
        said = event.id, event.call_id, event.parameters["n"], os.getpid(), time.monotonic()
        file.write(" ".join(map(str, said)) + "\n")


def record_in_thread(event: CallEvent, context: Context) -> None:
    _write(event, context)


async def sleep_ten_seconds(event: CallEvent, context: Context) -> None:
    await asyncio.sleep(10)
    _write(event, context)


def block_ten_seconds(event: CallEvent, context: Context) -> None:
    time.sleep(10)
    _write(event, context)


async def always_raise(event: CallEvent, context: Context) -> None:
    raise ValueError("this handler is broken")


async def fail_twice(event: CallEvent, context: Context) -> None:
    if context.attempt < 3:
        raise TemporaryError("not yet")
    _write(event, context)


async def never_now(event: CallEvent, context: Context) -> None:
    raise TemporaryError("not now")


async def refuse_the_first(event: CallEvent, context: Context) -> None:
    if event.parameters["n"] == "0":
        raise PermanentError("the first one never")
    _write(event, context)


async def die_on_poison(event: CallEvent, context: Context) -> None:
    if event.call_id.startswith("poison") and event.parameters["n"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    _write(event, context)


async def record_owner(event: CallEvent, context: Context) -> None:
    path = Path(os.environ["RECORDINGS"]) / context.handler
    path.write_text(f"{event.id} {event.call_id} {context.extension.owner}\n")


async def record_whole(event: CallEvent, context: Context) -> None:
    path = Path(os.environ["RECORDINGS"]) / context.handler
    with path.open("a") as file:
        file.write(json.dumps(event.as_dict()) + "\n")


async def record_whole_at_the_second(event: CallEvent, context: Context) -> None:
    if context.attempt == 1:
        raise TemporaryError("not yet")
    await record_whole(event, context)


async def record_names(event: CallEvent, context: Context) -> None:
    path = Path(os.environ["RECORDINGS"]) / context.handler
    call = await context.call()
    with path.open("a") as file:
        file.write(f"{event.caller.name}, {call.caller.name}, {event.parameters['CallerIDName']}\n")


async def park_some(event: CallEvent, context: Context) -> None:
    first = event.parameters["n"] == "0" and context.attempt == 1
    if first and event.call_id.startswith("parked"):
        raise TemporaryError("not yet")
    _write(event, context)


async def park_every_tenth(event: CallEvent, context: Context) -> None:
    if context.attempt == 1 and int(str(event.parameters["n"])) % 10 == 3:
        raise TemporaryError("not yet")
    _write(event, context)


async def remember(event: CallEvent, context: Context) -> None:
    before = await context.memory.get("calls")
    await context.memory.set("calls", f"{before or ''}{event.parameters['n']}", seconds=60)
    await context.memory.delete("nothing")


async def refuse_until_mended(event: CallEvent, context: Context) -> None:
    if (
        event.parameters["n"] == "0"
        and not (Path(os.environ["RECORDINGS"]) / "it-is-mended").exists()
    ):
        raise PermanentError("not before it is mended")
    _write(event, context)
