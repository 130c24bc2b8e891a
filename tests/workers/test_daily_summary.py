"""The daily summary of calls."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
import redis as blocking

from offhook import Call, CallEvent, EventType
from offhook.connection import connect
from offhook.inbox import Inbox
from offhook.settings import Settings
from offhook.testing import sample_call
from tests.conftest import SECRET
from tests.workers.test_fold_calls import Bench, answered, missed
from workers import fold_calls as module
from workers.daily_summary import announce_day, event_of

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


@pytest.fixture
def bench(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(module, "QUIET", 0.1)
    made = Bench(redis_url)
    yield made
    made.redis.close()


def test_each_complete_day_is_announced_once(bench: Bench) -> None:
    settings = Settings(
        secret=SECRET,  # type: ignore[arg-type]
        redis_url=bench.url,
        daily_summary="13:30",
    )
    bench.append(*answered("c1"), *missed("c2"))
    bench.keep()
    utc = datetime.now(UTC)
    today = utc.astimezone(timezone(timedelta(hours=12 - utc.hour)))  # a zone where it is noon

    def tell(day: int, hour: int) -> list[str]:
        async def go() -> None:
            client, rq = connect(bench.url), blocking.Redis.from_url(bench.url)
            moment = today.replace(hour=hour, minute=0) + timedelta(days=day)
            await announce_day(settings, Inbox(client, 1), rq, moment)
            await client.aclose()
            rq.close()

        asyncio.run(go())
        return [
            event.parameters["calls"]
            for event in bench.events()
            if event.type == EventType.DAILY_SUMMARY
        ]

    assert tell(-1, 13) == []  # not due yet
    assert tell(-1, 15) == []  # the first day is not complete
    assert tell(0, 13) == []
    assert tell(0, 14) == ["2"]
    assert tell(0, 20) == ["2"]
    bench.redis.set("offhook:summary", "2026-01-01")  # as after a crash before it was recorded
    assert tell(0, 21) == ["2"]
    assert tell(1, 14) == ["2"]  # a day without calls
