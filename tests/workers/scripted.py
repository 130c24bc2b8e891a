"""A handler that does as the model of a test says."""

from collections.abc import Callable

from offhook import CallEvent, Context

script: list[Callable[[CallEvent, Context], None]] = []


async def handle(event: CallEvent, context: Context) -> None:
    script[-1](event, context)
