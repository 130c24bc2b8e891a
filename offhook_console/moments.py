"""Moments of the past: in the address of the wallboard, and when their day began."""

import re
from datetime import UTC, datetime, timedelta
from datetime import time as clock_time

from offhook_console.call_query import moment_of
from offhook_console.languages import gettext
from offhook_console.problem_details import ConsoleError

_CLOCK = re.compile(r"[0-2]?[0-9]:[0-5][0-9](:[0-5][0-9])?")


def moment_at(text: str | None, now: datetime) -> datetime | None:
    """The moment to show: a time as 2026-05-01T14:00:30, or as 14:00 within the last 24 hours.

    Raises:
        ConsoleError: it is not one.
    """
    if not text or not _CLOCK.fullmatch(text):
        return moment_of(text or None, "at")
    hours, minutes, seconds = (int(each) for each in f"{text}:00".split(":")[:3])
    if hours > 23:
        raise ConsoleError(400, gettext("at: write a time as 2026-05-01T14:00 or 14:00."))
    today = now.astimezone().replace(hour=hours, minute=minutes, second=seconds, microsecond=0)
    return (today if today <= now else today - timedelta(days=1)).astimezone(UTC)


def url_at(moment: datetime) -> str:
    """The address of the wallboard as it was at a moment."""
    return f"/now?at={moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def midnight_of(moment: datetime) -> datetime:
    """When the day of a moment began, in the time zone of this machine."""
    day = moment.astimezone().date()
    return datetime.combine(day, clock_time()).astimezone()
