"""The daily summary of calls."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from offhook import Call, CallEvent, EventType
from offhook.connection import connect
from offhook.event import from_stored
from offhook.inbox import Inbox, keys
from offhook.settings import Settings
from offhook.testing import sample_call, sample_event
from tests.conftest import SECRET
from tests.events import batch_of
from tests.workers.folded import fold
from workers.daily_summary import announce_day, event_of

T = TypeVar("T")
ZONE = ZoneInfo("Europe/Bucharest")
END = datetime(2026, 11, 21, 18, tzinfo=ZONE)


def test_summary_has_numbers_and_a_text() -> None:
    calls: list[Call] = [
        sample_call("answered"),
        sample_call("missed"),
        sample_call("missed", direction="out"),
        sample_call("busy"),
    ]
    event = event_of("main", calls, END)
    told = event.parameters
    assert (told["calls"], told["answered"], told["missed"], told["busy"]) == ("4", "1", "2", "1")
    assert (told["in"], told["out"], told["internal"]) == ("3", "1", "0")
    first, *others = told["text"].splitlines()
    assert first == "4 calls: 1 answered, 2 missed, 1 busy"
    assert [line.partition(" ")[2] for line in others] == [
        "Jane Doe (+40211234567): missed",
        "Jane Doe (+40211234567): busy",
    ]
    assert CallEvent.from_dict(event.as_dict()) == event


def test_summary_lists_a_limited_number_of_missed_calls() -> None:
    text = event_of("main", [sample_call("missed")] * 13, END).parameters["text"].splitlines()
    assert (len(text), text[-1]) == (12, "and 3 more")


def test_summary_has_a_stable_id() -> None:
    calls = [sample_call()]
    assert event_of("main", calls, END).id == event_of("main", calls, END).id
    ids = {event_of(pbx, calls, END + timedelta(days=n)).id for pbx in "ab" for n in (0, 1)}
    assert len(ids) == 4


def test_each_complete_day_is_announced_once(redis_url: str) -> None:
    settings = Settings(
        secret=SECRET,  # type: ignore[arg-type]
        redis_url=redis_url,
        partitions=1,
        daily_summary="13:30",
        settle=0.1,
    )

    def do(go: Callable[[Inbox], Awaitable[T]]) -> T:
        async def run() -> T:
            async with connect(redis_url) as client:
                return await go(Inbox(client, 1))

        return asyncio.run(run())

    told = [
        msgspec.structs.replace(sample_event(type_, received=datetime.now(UTC)), call_id=call)
        for call in ("c1", "c2")
        for type_ in ("dial-in", "hangup")
    ]
    do(lambda inbox: inbox.append(batch_of(*told), 0))
    fold(settings)
    utc = datetime.now(UTC)
    today = utc.astimezone(timezone(timedelta(hours=12 - utc.hour)))  # a zone where it is noon

    def tell(day: int, hour: int) -> list[str]:
        moment = today.replace(hour=hour, minute=0) + timedelta(days=day)
        do(lambda inbox: announce_day(settings, inbox, moment))
        found: Any = do(lambda inbox: inbox.redis.xrange(keys.inbox(0)))
        events = [from_stored(fields[b"e"]) for _, fields in found]
        return [
            event.parameters["calls"] for event in events if event.type is EventType.DAILY_SUMMARY
        ]

    assert tell(-1, 13) == []  # not due yet
    assert tell(-1, 15) == []  # the first day is not complete
    assert tell(0, 13) == []
    assert tell(0, 14) == ["2"]
    assert tell(0, 20) == ["2"]
    do(lambda inbox: inbox.redis.set(keys.daily_summary(), "2026-01-01"))  # as after a crash
    assert tell(0, 21) == ["2"]
    assert tell(1, 14) == ["2"]  # a day without calls
