"""How a handler fared over a time span: deliveries, failures, and how long they took.

From the record of deliveries, which the inbox keeps as long as events.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec

from offhook.inbox import Inbox
from offhook.inbox.record import Record, WantedAttempts
from offhook.inbox.record_part import AttemptOutcome, RecordedAttempt
from offhook_console.languages import N_

SPANS: Mapping[str, str] = {
    "1h": N_("Last hour"),
    "today": N_("Today"),
    "7d": N_("Last 7 days"),
}
_STEPS = {"1h": timedelta(minutes=1), "today": timedelta(minutes=30), "7d": timedelta(hours=4)}
_PAGE = 500
_MOST = 20_000  # attempts
_PATIENCE = 2.0  # seconds
_KEEP = 10.0  # seconds that an answer is shown to all who look


class CoursePart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the span.

    Attributes:
        median, p99: milliseconds that its attempts took; null if there were none.
    """

    began: datetime
    delivered: int
    failed: int
    median: float | None
    p99: float | None


class HandlerCourse(msgspec.Struct, frozen=True, kw_only=True):
    """A handler's attempts over a time span.

    Attributes:
        parts: of equal length, oldest first.
        counted_since: back to when the attempts were counted: there may be too many of them.
        complete: whether that is the whole span.
    """

    since: datetime
    until: datetime
    parts: list[CoursePart]
    counted_since: datetime
    complete: bool


@dataclass
class _Bar:
    delivered: int = 0
    failed: int = 0
    took: list[float] = field(default_factory=list)


class HandlerCourses:
    """The courses of all handlers, each looked up once for all who look."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, HandlerCourse]] = {}
        self._looking = asyncio.Lock()

    async def get(self, inbox: Inbox, handler: str, span: str) -> HandlerCourse:
        """The course of a handler over one of `SPANS`, some seconds old at most."""
        async with self._looking:
            until, course = self._known.get((handler, span), (0.0, None))
            if course is None or time.monotonic() >= until:
                course = await _look_up(inbox, handler, span)
                self._known[handler, span] = (time.monotonic() + _KEEP, course)
            return course


async def _look_up(inbox: Inbox, handler: str, span: str) -> HandlerCourse:
    now, step = datetime.now(UTC), _STEPS[span]
    since = _beginning(span, now)
    bars = [_Bar() for _ in range((now - since) // step + 1)]
    counted_since, complete = await _count(inbox, handler, since, step, bars)
    return HandlerCourse(
        since=since,
        until=now,
        parts=[_part(bar, since + number * step) for number, bar in enumerate(bars)],
        counted_since=counted_since,
        complete=complete,
    )


def _beginning(span: str, now: datetime) -> datetime:
    """The beginning of the span's first part: a full minute, or midnight where the server is."""
    if span == "1h":
        return now.replace(second=0, microsecond=0) - timedelta(minutes=59)
    today = now.astimezone().date()
    first = today if span == "today" else today - timedelta(days=6)
    return datetime.combine(first, datetime.min.time()).astimezone(UTC)


async def _count(
    inbox: Inbox, handler: str, since: datetime, step: timedelta, bars: list[_Bar]
) -> tuple[datetime, bool]:
    """Count the attempts, newest first. Return back to when, and whether these are all."""
    record, wanted = Record(inbox), WantedAttempts(handler=handler, since=since)
    end, before, counted = time.monotonic() + _PATIENCE, None, 0
    while True:
        page = await record.page(wanted, _PAGE, before)
        for each in page.attempts:
            _add(each, since, step, bars)
        counted += len(page.attempts)
        before = page.following
        if before is None:
            return since, True
        if counted >= _MOST or time.monotonic() >= end:
            oldest = page.searched or (page.attempts[-1].began if page.attempts else since)
            return max(since, oldest), False


def _add(attempt: RecordedAttempt, since: datetime, step: timedelta, bars: list[_Bar]) -> None:
    bar = bars[min(len(bars) - 1, max(0, (attempt.began - since) // step))]
    if attempt.outcome is AttemptOutcome.DELIVERED:
        bar.delivered += 1
    else:
        bar.failed += 1
    bar.took.append(round(attempt.took * 1000, 2))


def _part(bar: _Bar, began: datetime) -> CoursePart:
    took = sorted(bar.took)
    return CoursePart(
        began=began,
        delivered=bar.delivered,
        failed=bar.failed,
        median=took[len(took) // 2] if took else None,
        p99=took[min(len(took) - 1, int(len(took) * 0.99))] if took else None,
    )
