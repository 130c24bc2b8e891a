"""Enqueue events with the engine of a module: python producer.py MODULE COUNT PER_CALL RATE.

Rate 0: as fast as possible, in batches. Otherwise one by one at this rate per second; the events of
a call follow each other by a millisecond.
"""

import asyncio
import inspect
import sys
import time
from importlib import import_module
from typing import Any


def event(call: int, step: int) -> dict[str, str]:
    return {
        "CallID": f"call-{call:016}",
        "CallerIDNum": "01614960207",
        "CallerIDName": "Müller GmbH",
        "CalledDID": "442079460100",
        "CalledExtension": "0003*210",
        "CallStatus": str(step),
        "CallFlow": "IN",
        "CallerExtension": "",
        "CalledNumber": "442079460100",
        "accepted": repr(time.time()),
    }


async def produce(enqueue: Any, count: int, per_call: int, rate: float) -> None:
    async def send(events: list[dict[str, str]]) -> None:
        sent = enqueue(events)
        if inspect.isawaitable(sent):
            await sent

    if not rate:
        for first in range(0, count, 1000):
            await send(
                [event(*divmod(n, per_call)) for n in range(first, min(first + 1000, count))]
            )
        return
    began = time.perf_counter()
    for number in range(count):
        call, step = divmod(number, per_call)
        due = began + (call * per_call / rate if per_call > 1 else number / rate) + step * 0.001
        while (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        await send([event(call, step)])


if __name__ == "__main__":
    module, count, per_call, rate = sys.argv[1:]
    asyncio.run(produce(import_module(module).enqueue, int(count), int(per_call), float(rate)))
