"""Ending what runs for ever."""

import asyncio
from typing import Any


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks, and return when they have ended: they are asked until they hear it.

    On Python 3.11 a cancellation can get lost: in `asyncio.wait_for`, with which redis-py sends,
    and before 3.11.3 in the package async_timeout, from which it takes its timeouts.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=0.2)


def asked_to_end() -> bool:
    """Was the running task cancelled, even if the cancellation got lost on its way?"""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
