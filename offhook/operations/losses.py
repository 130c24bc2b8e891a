"""When handlers that get nothing now begin to lose events, because of `max_events`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from offhook.inbox import Inbox, keys
from offhook.inbox.handler_states import HandlerStates
from offhook.inbox.positions import order_of
from offhook.settings import Settings

_SOON = 7 * 86_400  # seconds; later than that is not worth a warning


async def seconds_until_loss(
    inbox: Inbox, settings: Settings, handlers: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Seconds until each handler, if it gets nothing, loses the first event that waits for it.

    An estimate, from the rate of the events that the inbox has. 0: it may be losing some now.
    Handlers for which nothing waits, or with more than a week left, are left out.

    Args:
        settings: the operator's.
        handlers: by tenant, whose events they get.
    """
    found: dict[str, float] = {}
    if settings.max_events is None:
        return found
    most = settings.max_events // inbox.partitions
    for partition in range(inbox.partitions):
        for tenant, stream in (await HandlerStates(inbox).figures(handlers, partition)).items():
            waiting = {name: each.lag for name, each in stream.handlers.items() if each.lag}
            if not waiting:
                continue
            its = settings.tenants.get(tenant)
            share = int(most * its.limits.share) if its else most
            rate = await _rate(inbox, partition, tenant)
            for name, lag in waiting.items():
                left = max(0.0, share - lag) / rate
                if left <= _SOON:
                    found[name] = min(left, found.get(name, left))
    return found


def losing(found: Mapping[str, float]) -> Iterator[str]:
    """A sentence about each of these handlers."""
    for name, left in found.items():
        when = f"in about {_about(left)}" if left else "now"
        yield (
            f"{name} gets no events, and loses the oldest that wait for it {when} (max_events): "
            "raise max_events, or let it have them"
        )


async def _rate(inbox: Inbox, partition: int, tenant: str) -> float:
    """Events that a stream has got each second, from its first one to its last one."""
    stream = keys.inbox(partition, tenant)
    first: Any = await inbox.redis.xrange(stream, count=1)
    last: Any = await inbox.redis.xrevrange(stream, count=1)
    length = await inbox.redis.xlen(stream)
    if not (first and last):
        return 1e-9
    began, ended = (order_of(each[0][0])[0] for each in (first, last))
    return max(1, length) / max(1.0, (ended - began) / 1000)


def _about(seconds: float) -> str:
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}s"
    return "a minute"
