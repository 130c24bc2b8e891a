"""Appends the events that Offhook itself makes, such as `phone-unregistered`, to the inbox."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable

import msgspec
from redis import Redis

from offhook import queues
from offhook.event import CallEvent, new_event_id, to_stored
from offhook.inbox import Batch, Inbox, partition_of
from offhook.settings import Settings

_AT_ONCE = 500


async def announce(
    settings: Settings, inbox: Inbox, rq: Redis, events: Iterable[CallEvent], *, window: float = 0.0
) -> int:
    """Append events, and wake the workers that deliver them.

    Args:
        rq: a blocking client.
        window: seconds in which an event with the same id is dropped as a repeat; 0: never.

    Returns:
        Number of events appended.

    Raises:
        InboxUnavailable: some of the events are not in the inbox.
    """
    for name, start in settings.cursors.items():
        await inbox.ensure_cursor(name, start)
    by_partition: defaultdict[int, list[CallEvent]] = defaultdict(list)
    for event in events:
        by_partition[partition_of(event, inbox.partitions)].append(event)
    writer, cursors, appended = new_event_id(), list(settings.cursors), 0
    for partition, its_events in by_partition.items():
        for number, at in enumerate(range(0, len(its_events), _AT_ONCE), 1):
            some = its_events[at : at + _AT_ONCE]
            stored = [msgspec.Raw(to_stored(event)) for event in some]
            batch = Batch(writer, number, partition, [event.id for event in some], stored)
            repeats, wake = await inbox.append(batch, cursors, window)
            appended += len(some) - len(repeats)
            for name in wake:
                await asyncio.to_thread(queues.wake, rq, name, partition)
    return appended
