"""Whether an extension is unusually silent. Pure functions.

It is when it has had no call today for some hours, and at least `CALLS` calls in the same hours of
each of the last `DAYS` workdays (Monday to Friday). Weekends have no habit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo

from offhook.event import CallEvent, EventType
from workers.own_events import own_event, stable_id

DAYS = 5
CALLS = 5
KEPT = timedelta(days=8)  # of calls by the hour: five workdays and a weekend
_HOUR = 3600

Hours = Mapping[int, int]  # hours since 1970 -> number of calls that began in that hour


@dataclass(frozen=True)
class Silence:
    """An unusual silence.

    Attributes:
        since: the first hour without a call, today.
        last_heard: the hour in which the last call began.
        usual: number of calls in the same hours of the last workdays, latest first.
    """

    since: datetime
    last_heard: datetime
    usual: tuple[int, ...]


def hour_of(moment: datetime) -> int:
    """Return the hours since 1970."""
    return int(moment.timestamp()) // _HOUR


def silence(calls: Hours, known_since: datetime, now: datetime, zone: tzinfo) -> Silence | None:
    """Return the silence of an extension if it is unusual. The current hour does not count.

    Args:
        calls: the calls of the extension.
        known_since: from when `calls` is complete.
        zone: the time zone of its days.
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
    """Return the event that announces a silence, with the same id each time."""
    hour, type_ = hour_of(found.last_heard), EventType.EXTENSION_SILENT
    return own_event(
        stable_id(hour * _HOUR * 1000, f"{pbx}/{extension}/{type_}/{hour}"),
        type_,
        pbx,
        f"extension {extension}",
        {
            "last_heard": found.last_heard.isoformat(),
            "silent_since": found.since.isoformat(),
            "usual": ", ".join(map(str, found.usual)),
        },
        extension=extension,
        received=now,
        occurred=found.since,
    )
