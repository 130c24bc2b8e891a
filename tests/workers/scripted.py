"""A handler with the outcomes that a test's model has planned."""

from collections.abc import Callable

from offhook import CallEvent, Context

script: list[Callable[[CallEvent, Context], None]] = []


async def handle(event: CallEvent, context: Context) -> None:
    script[-1](event, context)
