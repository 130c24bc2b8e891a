"""Fill the inbox with events, as the receiver does but faster."""

from itertools import count
from typing import Any

import msgspec

from benchmarks.load import fields
from offhook.connection import connect
from offhook.dialects.voipnow import read_event
from offhook.event import EventType, new_event_id, to_stored
from offhook.inbox import Batch, Inbox, partition_of
from offhook.settings import Settings

_numbers = count(1)


async def positions(settings: Settings) -> None:
    """Give every handler its positions, as a receiver does at startup."""
    async with connect(settings.redis_url) as redis:
        await Inbox(redis, settings.partitions).register(settings.starts)


async def fill(
    settings: Settings, events: int, *, per_call: int = 1, extensions: int = 100
) -> None:
    """Append events; the handlers are called as soon as workers run."""
    writer = new_event_id()
    async with connect(settings.redis_url) as redis:
        inbox = Inbox(redis, settings.partitions)
        for first in range(0, events, 500):
            waiting: dict[int, tuple[list[str], list[Any]]] = {}
            for number in range(first, min(first + 500, events)):
                call, step = divmod(number, per_call)
                event = read_event(
                    pbx="main",
                    extension=f"0003*{call % extensions:03}",
                    type=EventType.DIAL_IN,
                    parameters=fields(f"{writer}-{call}", CallStatus=str(step)),
                )
                marks, stored = waiting.setdefault(
                    partition_of(event, settings.partitions), ([], [])
                )
                marks.append(event.id)
                stored.append(msgspec.Raw(to_stored(event)))
            for partition, (marks, stored) in waiting.items():
                batch = Batch(writer, next(_numbers), partition, marks, stored)
                await inbox.append(batch, 0)
