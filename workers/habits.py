"""When an extension usually has calls, and whether it has fallen silent against its habit. Pure.

Of each of the last five workdays (Monday to Friday) it must have had so many calls in the hours
that have passed since it was last heard. Whoever has few calls, or none on some days, has no habit
that silence could break; nor has anybody on a weekend.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from hashlib import blake2b

from offhook.call import Party
from offhook.event import CallEvent, EventType

DAYS = 5  # workdays
CALLS = 5  # on each of them, in the hours of the silence
KEPT = timedelta(days=8)  # of calls, by the hour: five workdays and a weekend
_HOUR = 3600

Hours = Mapping[int, int]  # hours since 1970 -> how many calls began in that hour, if any


@dataclass(frozen=True)
class Silence:
    """A silence against the habit.

    Attributes:
        since: the hour from which on it is silent, today.
        last_heard: the hour in which the last call began.
        usual: the calls in the same hours of the last workdays, the latest first.
    """

    since: datetime
    last_heard: datetime
    usual: tuple[int, ...]


def hour_of(moment: datetime) -> int:
    """The hour of a moment, counted from 1970."""
    return int(moment.timestamp()) // _HOUR


def silence(calls: Hours, known_since: datetime, now: datetime, zone: tzinfo) -> Silence | None:
    """Has it fallen silent today? Whole hours count: that which goes on does not.

    Args:
        calls: of one extension.
        known_since: from when on `calls` is complete.
        zone: in which its days begin.
    """
    today = now.astimezone(zone)
    heard = [hour for hour, count in calls.items() if count and hour <= hour_of(now)]
    if today.weekday() >= 5 or not heard:
        return None
    last = datetime.fromtimestamp(max(heard) * _HOUR, zone)
    begin = last.hour + 1 if last.date() == today.date() else 0
    days = _workdays_before(today.date())
    if _at(days[-1], 0, zone) < known_since:
        return None
    usual = tuple(_count(calls, day, begin, today.hour, zone) for day in days)
    if min(usual) < CALLS:
        return None
    return Silence(_at(today.date(), begin, zone), last, usual)


def _workdays_before(day: date) -> list[date]:
    found: list[date] = []
    while len(found) < DAYS:
        day -= timedelta(days=1)
        if day.weekday() < 5:
            found.append(day)
    return found


def _count(calls: Hours, day: date, begin: int, end: int, zone: tzinfo) -> int:
    return sum(calls.get(hour_of(_at(day, hour, zone)), 0) for hour in range(begin, end))


def _at(day: date, hour: int, zone: tzinfo) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=zone)


def event(pbx: str, extension: str, found: Silence, now: datetime) -> CallEvent:
    """What is told of a silence: with the same id however often."""
    return CallEvent(
        id=_event_id(pbx, extension, found),
        pbx=pbx,
        extension=extension,
        type=EventType.EXTENSION_SILENT,
        call_id=f"extension {extension}",
        direction=None,
        caller=Party(),
        called=Party(),
        status=None,
        received=now,
        occurred=found.since.astimezone(UTC),
        parameters={
            "last_heard": found.last_heard.isoformat(),
            "silent_since": found.since.isoformat(),
            "usual": ", ".join(map(str, found.usual)),
        },
    )


def _event_id(pbx: str, extension: str, found: Silence) -> str:
    """Shaped as `new_event_id` shapes it; the same for the same silence."""
    at = hour_of(found.last_heard)
    name = f"{pbx}/{extension}/{EventType.EXTENSION_SILENT}/{at}".encode()
    return f"{at * _HOUR * 1000:012x}{blake2b(name, digest_size=10).hexdigest()}"
