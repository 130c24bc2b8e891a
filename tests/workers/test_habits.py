"""Whether the silence of an extension is unusual."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.event import EventType
from workers.habits import CALLS, DAYS, Silence, event, hour_of, silence

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
LONG_AGO = MONDAY - timedelta(days=30)
FULL = dict.fromkeys(range(9, 17), 6)


def weeks(per_hour: dict[int, int], today: dict[int, int], day: datetime) -> dict[int, int]:
    """Return calls by the hour, for the workdays of three weeks before `day`, and for `day`."""
    calls: dict[int, int] = {}
    for back in range(1, 22):
        other = day - timedelta(days=back)
        if other.weekday() < 5:
            calls |= {hour_of(other + timedelta(hours=h)): n for h, n in per_hour.items()}
    return calls | {hour_of(day + timedelta(hours=h)): n for h, n in today.items()}


@pytest.mark.parametrize(
    ("usually", "today", "at", "since"),
    [
        (FULL, {}, 9, None),  # the current hour does not count
        (FULL, {}, 10, 0),
        (FULL, {}, 12, 0),
        (FULL, {9: 1, 10: 3}, 11, None),
        (FULL, {9: 1, 10: 3}, 12, 11),  # silent from 11
        (FULL, {9: 1, 10: 3, 14: 1}, 14, None),  # a call just now
        (FULL, {9: 1, 10: 3}, 23, 11),
        ({10: CALLS - 1}, {}, 23, None),  # too few calls
        ({10: CALLS - 1, 15: 1}, {}, 15, None),
        ({10: CALLS - 1, 15: 1}, {}, 16, 0),
        ({}, {}, 23, None),
        ({}, {9: 7}, 23, None),  # no habit
    ],
)
def test_silence_is_unusual_against_the_habit(
    usually: dict[int, int], today: dict[int, int], at: int, since: int | None
) -> None:
    found = silence(weeks(usually, today, MONDAY), LONG_AGO, MONDAY + timedelta(hours=at), UTC)
    assert (found.since if found else None) == (
        None if since is None else MONDAY + timedelta(hours=since)
    )


def test_silence_has_the_usual_numbers_and_the_last_call() -> None:
    calls = weeks(FULL, {9: 2}, MONDAY)
    thursday = MONDAY - timedelta(days=4)
    calls[hour_of(thursday + timedelta(hours=10))] = 8
    now = MONDAY + timedelta(hours=12, minutes=20)
    found = silence(calls, LONG_AGO, now, UTC)
    assert found == Silence(
        MONDAY + timedelta(hours=10), MONDAY + timedelta(hours=9), (12, 14, 12, 12, 12)
    )
    told = event("main", "0003*210", found, now)
    assert (told.type, told.call_id) == (EventType.EXTENSION_SILENT, "extension 0003*210")
    assert told.parameters == {
        "last_heard": "2026-11-23T09:00:00+00:00",
        "silent_since": "2026-11-23T10:00:00+00:00",
        "usual": "12, 14, 12, 12, 12",
    }
    later = silence(calls, LONG_AGO, now + timedelta(hours=2), UTC)
    assert later is not None
    assert event("main", "0003*210", later, now).id == told.id
    assert event("main", "0003*211", later, now).id != told.id


def test_quiet_workday_breaks_the_habit() -> None:
    for day in (MONDAY - timedelta(days=back) for back in range(1, 8)):
        calls = weeks(FULL, {}, MONDAY)
        for hour in range(24):
            calls.pop(hour_of(day + timedelta(hours=hour)), None)
        found = silence(calls, LONG_AGO, MONDAY + timedelta(hours=12), UTC)
        assert (found is None) is (day.weekday() < 5)


def test_silence_on_a_weekend_is_usual() -> None:
    for day in (MONDAY - timedelta(days=1), MONDAY - timedelta(days=2)):
        assert silence(weeks(FULL, {}, day), LONG_AGO, day + timedelta(hours=12), UTC) is None


def test_habit_takes_a_week_to_learn() -> None:
    first = MONDAY - timedelta(days=7)
    calls, now = weeks(FULL, {}, MONDAY), MONDAY + timedelta(hours=12)
    assert silence(calls, first, now, UTC) is not None
    assert silence(calls, first + timedelta(hours=1), now, UTC) is None


def test_days_begin_in_the_zone_of_the_extension() -> None:
    tokyo = ZoneInfo("Asia/Tokyo")
    monday = datetime(2026, 11, 23, tzinfo=tokyo)  # Sunday 15:00 in UTC
    calls = weeks(FULL, {}, monday)
    now = monday + timedelta(hours=12)
    found = silence(calls, LONG_AGO, now, tokyo)
    assert found is not None
    assert found.since == monday
    assert silence(calls, LONG_AGO, now - timedelta(hours=4), UTC) is None  # a Sunday in UTC


@given(
    st.dictionaries(st.integers(0, 23), st.integers(1, 9)),
    st.dictionaries(st.integers(0, 23), st.integers(1, 9)),
    st.integers(0, 23),
)
def test_announced_extension_usually_has_calls_in_these_hours(
    usually: dict[int, int], today: dict[int, int], at: int
) -> None:
    today = {hour: n for hour, n in today.items() if hour <= at}
    found = silence(weeks(usually, today, MONDAY), LONG_AGO, MONDAY + timedelta(hours=at), UTC)
    begin = max(today, default=-1) + 1
    expected = sum(n for hour, n in usually.items() if begin <= hour < at)
    assert (found is not None) is (expected >= CALLS)
    if found is not None:
        assert found.usual == (expected,) * DAYS
