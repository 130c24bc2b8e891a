"""What a handler would have got with another filter: asked of the events that the inbox keeps."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from pydantic import ValidationError
from redis.asyncio import Redis

from offhook.errors import ConfigError
from offhook.event import CallEvent, EventType
from offhook.inbox import Inbox, keys
from offhook.inbox.entries import events_of
from offhook.inbox.positions import position_at
from offhook.plugins import PluggedHandler, event_types
from offhook.settings import HandlerSettings, Settings

_PAGE = 500
_PATIENCE = 3.0  # seconds for the whole question
_NAMED = 5  # extensions that are new

SPANS: Mapping[str, str] = {
    "1h": "the last hour",
    "today": "today",
    "yesterday": "yesterday",
    "7d": "the last 7 days",
}


class FilterAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a filter would have got of the events of a time span.

    Attributes:
        looked: number of events that were looked at.
        got: number that the present filter admits.
        would_get: number that the other filter admits.
        more, fewer: number that only the other one, or only the present one, admits.
        types: event type -> number that the other filter admits.
        gained: extension -> number of events that only the other filter admits; the first few.
        complete: whether all events of the span were looked at; else the time was over.
    """

    since: datetime
    until: datetime
    looked: int
    got: int
    would_get: int
    more: int
    fewer: int
    types: dict[str, int]
    gained: dict[str, int]
    complete: bool


@dataclass(frozen=True)
class AskedFilter:
    """The present filter of a handler, and another one.

    Attributes:
        present, other: the handler as it is, and as it would be.
    """

    present: PluggedHandler
    other: PluggedHandler


def other_filter(
    name: str,
    policy: HandlerSettings,
    events: str | None = None,
    extensions: str | None = None,
) -> AskedFilter:
    """A handler's filter, and the same with other events or extensions.

    Args:
        events: types and groups, separated by commas; empty: the handler's own choice.
        extensions: patterns, separated by commas; empty: all.

    Raises:
        ConfigError: a word is none of these, or the plugin cannot be loaded.
    """
    table: dict[str, Any] = {"use": policy.use}
    for field, said, kept in (
        ("events", events, policy.events),
        ("extensions", extensions, policy.extensions),
    ):
        words = None if said is None else [each.strip() for each in said.split(",") if each.strip()]
        value = kept if words is None else words or None
        if value is not None:
            table[field] = list(value)
    try:
        wanted = HandlerSettings.model_validate(table)
    except ValidationError as error:
        raise ConfigError([str(each["msg"]) for each in error.errors()]) from error
    update = {"events": wanted.events, "extensions": wanted.extensions}
    return AskedFilter(_plugged(name, policy), _plugged(name, policy.model_copy(update=update)))


def span(of: str, now: datetime) -> tuple[datetime, datetime]:
    """The time of `1h`, `today`, `yesterday` or `7d`, in this machine's zone.

    Raises:
        KeyError: it is none of these.
    """
    midnight = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    return {
        "1h": (now - timedelta(hours=1), now),
        "today": (midnight, now),
        "yesterday": (midnight - timedelta(days=1), midnight),
        "7d": (now - timedelta(days=7), now),
    }[of]


async def ask_filter(
    inbox: Inbox,
    settings: Settings,
    asked: AskedFilter,
    extension: Callable[[str, str], Any],
    since: datetime,
    until: datetime,
) -> FilterAnswer:
    """Ask what a handler would have got. Changes nothing, and ends after some seconds.

    Args:
        settings: the operator's.
        extension: the settings of an extension, by PBX and number: they decide, too.
    """
    counted = _Counted(asked, extension)
    name = asked.present.name
    tenant, slash, _ = name.rpartition("/")
    tenants = [tenant]
    if not slash:
        tenants += [each for each in settings.tenants if asked.present.policy.gets(each)]
    end = time.monotonic() + _PATIENCE
    complete = True
    for partition in range(inbox.partitions):
        for each in tenants:
            stream = keys.inbox(partition, each)
            complete &= await _read(inbox.redis, stream, since, until, counted, end)
    return FilterAnswer(
        since=since.astimezone(UTC),
        until=until.astimezone(UTC),
        looked=counted.looked,
        got=counted.got,
        would_get=counted.types.total(),
        more=counted.more,
        fewer=counted.fewer,
        types={each.value: counted.types[each] for each in EventType if counted.types[each]},
        gained=dict(counted.gained.most_common(_NAMED)),
        complete=complete,
    )


class _Counted:
    """Counts events."""

    def __init__(self, asked: AskedFilter, of: Callable[[str, str], Any]) -> None:
        self._asked = asked
        self._of = of
        self.looked = self.got = self.more = self.fewer = 0
        self.types: Counter[EventType] = Counter()
        self.gained: Counter[str] = Counter()

    def add(self, event: CallEvent) -> None:
        self.looked += 1
        before = self._asked.present.wants(event, self._of)
        after = self._asked.other.wants(event, self._of)
        self.got += before
        if after:
            self.types[event.type] += 1
        if after and not before:
            self.more += 1
            self.gained[event.extension] += 1
        self.fewer += before and not after


async def _read(
    redis: Redis, stream: str, since: datetime, until: datetime, counted: _Counted, end: float
) -> bool:
    """Count a stream's events. Return False if the time was over before."""
    first, last = position_at(since), f"({position_at(until)}"
    while time.monotonic() < end:
        page: Any = await redis.xrange(stream, first, last, _PAGE)
        for event in events_of(page):
            counted.add(event)
        if len(page) < _PAGE:
            return True
        first = f"({page[-1][0].decode()}"
    return False


def _plugged(name: str, policy: HandlerSettings) -> PluggedHandler:
    def never(*_: object) -> None:
        raise AssertionError("a question delivers nothing")

    return PluggedHandler(name, policy, never, is_async=False, events=event_types(policy))
