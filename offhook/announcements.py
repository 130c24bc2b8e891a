"""Appends the events that Offhook itself makes, such as `phone-unregistered`, to the inbox."""

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from offhook.event import CallEvent, new_event_id, to_stored
from offhook.inbox import Batch, Inbox, partition_of
from offhook.settings import Settings

_AT_ONCE = 500


async def announce(
    settings: Settings, inbox: Inbox, events: Iterable[CallEvent], *, window: float = 0.0
) -> int:
    """Append events.

    Args:
        window: seconds in which an event with the same id is dropped as a repeat; 0: never.

    Returns:
        Number of events appended.

    Raises:
        InboxUnavailable: some of the events are not in the inbox.
    """
    await inbox.register(settings.starts)
    by_partition: defaultdict[int, list[CallEvent]] = defaultdict(list)
    for event in events:
        by_partition[partition_of(event, inbox.numbering.configured)].append(event)
    writer, appended = new_event_id(), 0
    for partition, its_events in by_partition.items():
        for number, at in enumerate(range(0, len(its_events), _AT_ONCE), 1):
            some = its_events[at : at + _AT_ONCE]
            stored = [msgspec.Raw(to_stored(event)) for event in some]
            ids, tenants = [event.id for event in some], [event.tenant for event in some]
            batch = Batch(writer, number, partition, ids, stored, tenants if any(tenants) else [])
            appended += len(some) - len(await inbox.append(batch, window))
    return appended
