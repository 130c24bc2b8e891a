"""The scheduled job that announces silent extensions."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import redis as blocking

from offhook import EventType, ExtensionSettings, queues
from offhook.connection import connect
from offhook.event import CallEvent, from_stored
from offhook.extensions import Extensions
from offhook.inbox import Inbox
from offhook.settings import load_settings
from offhook.testing import sample_event
from tests.conftest import Configure
from tests.events import batch_of
from tests.workers.folded import fold
from workers import silence
from workers.scheduler import Scheduler

NOW = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)
DESK = "0003*210"
JOB = "workers.silence.find_silent_extensions"
SCREEN = "[handlers.screen]\nuse = 'console'\n"
ZONE = "[pbx.main]\nhost = 'https://pbx'\ntoken = 'x'\nzone = 'UTC'\n"


class Bench:
    def __init__(self, url: str) -> None:
        self.url = url
        self.redis = blocking.Redis.from_url(url)
        self.settings = load_settings().model_copy(
            update={"keep_days": 30.0, "settle": 0.0, "settle_unanswered": 0.0}
        )
        self._number = 0
        names = {("main", DESK): ExtensionSettings()}
        self.run(lambda inbox: Extensions(inbox.redis).change(names))

    def run(self, go: Any) -> None:
        async def run() -> None:
            async with connect(self.url) as client:
                await go(Inbox(client, 1))

        asyncio.run(run())

    def call(self, *moments: datetime) -> None:
        """Add a call at each of these times."""
        told = []
        for moment in moments:
            self._number += 1
            for type_ in ("dial-in", "hangup"):
                event = sample_event(type_, received=moment, extension=DESK)
                told.append(msgspec.structs.replace(event, call_id=f"c{self._number}"))
        self.run(lambda inbox: inbox.append(batch_of(*told), 0))
        fold(self.settings)

    def look(self, now: datetime) -> list[CallEvent]:
        """Check once. Return all announced silences so far."""
        self.run(lambda inbox: silence.look(self.settings, inbox, now))
        found: Any = self.redis.xrange("offhook:{0}:inbox")
        events = [from_stored(fields[b"e"]) for _, fields in found]
        return [event for event in events if event.type is EventType.EXTENSION_SILENT]


@pytest.fixture
def bench(redis_url: str, configure: Configure) -> Iterator[Bench]:
    configure(SCREEN + ZONE)
    made = Bench(redis_url)
    yield made
    made.redis.close()


def last_workday() -> datetime:
    """Return noon of the last completed workday."""
    day = NOW.replace(hour=12) - timedelta(days=1)
    while day.weekday() >= 5:
        day -= timedelta(days=1)
    return day


def test_silence_is_announced_once_until_the_next_call(bench: Bench) -> None:
    noon = last_workday()
    mornings = [noon - timedelta(days=back, hours=2) for back in range(1, 10)]
    bench.call(*(m + timedelta(seconds=n) for m in mornings for n in range(6)))
    [told] = bench.look(noon)
    assert (told.extension, told.parameters["usual"]) == (DESK, "6, 6, 6, 6, 6")
    assert bench.look(noon + timedelta(hours=1)) == [told]
    bench.redis.delete("offhook:habits:silent")  # as if killed before it was recorded
    assert bench.look(noon + timedelta(hours=1)) == [told]
    bench.call(noon + timedelta(hours=1, minutes=1))
    assert bench.look(noon + timedelta(hours=3)) == [told]
    assert not bench.redis.exists("offhook:habits:silent")


def test_lasting_silence_is_not_announced_again(bench: Bench) -> None:
    noon = last_workday()
    mornings = [noon - timedelta(days=back, hours=2) for back in range(1, 10)]
    bench.call(*(m + timedelta(seconds=n) for m in mornings for n in range(6)))
    [told] = bench.look(noon)
    for mark in bench.redis.scan_iter("offhook:{0}:seen:*"):  # they expire after a day
        bench.redis.delete(mark)
    assert bench.look(noon + timedelta(hours=5)) == [told]


def test_counts_outlive_deleted_calls(bench: Bench) -> None:
    noon = last_workday()
    mornings = [noon - timedelta(days=back, hours=2) for back in range(1, 10)]
    bench.call(*(m + timedelta(seconds=n) for m in mornings for n in range(6)))
    bench.look(noon - timedelta(hours=4))
    bench.redis.delete("offhook:{0}:calls")
    assert len(bench.look(noon)) == 1


def test_calls_are_counted_once(bench: Bench) -> None:
    noon = last_workday()
    mornings = [noon - timedelta(days=back, hours=2) for back in range(1, 10)]
    bench.call(*(m + timedelta(seconds=n) for m in mornings for n in range(3)))
    for minutes in range(0, 240, 30):
        assert bench.look(noon + timedelta(minutes=minutes)) == []
    counted: Any = bench.redis.hget("offhook:habits", f"main/{DESK}")
    assert set(msgspec.json.decode(counted, type=dict[int, int]).values()) == {3}


def test_late_call_is_counted(bench: Bench) -> None:
    noon = last_workday()
    for minutes in (20, 10):
        bench.call(noon - timedelta(minutes=minutes))
        bench.look(noon)
    counted: Any = bench.redis.hget("offhook:habits", f"main/{DESK}")
    assert list(msgspec.json.decode(counted, type=dict[int, int]).values()) == [2]


def test_counting_restarts_after_a_long_break(bench: Bench) -> None:
    noon = last_workday()
    bench.look(noon - timedelta(days=60))
    mornings = [noon - timedelta(days=back, hours=2) for back in range(1, 10)]
    bench.call(*(m + timedelta(seconds=n) for m in mornings for n in range(6)))
    bench.settings = bench.settings.model_copy(update={"keep_days": 3.0})
    assert bench.look(noon) == []  # less than a week is known


def test_job_runs_only_if_a_handler_wants_its_event(bench: Bench, configure: Configure) -> None:
    async def turn() -> None:
        async with connect(bench.url) as client:
            await Scheduler(load_settings(), Inbox(client, 1), bench.redis).round_of_jobs()

    def waiting() -> list[Any]:
        return [job.func_name for job in queues.queue(queues.SCHEDULED, bench.redis).jobs]

    asyncio.run(turn())
    assert JOB not in waiting()
    configure(SCREEN + "events = ['extension-silent']\n")
    asyncio.run(turn())
    assert JOB in waiting()
    silence.find_silent_extensions()
    assert bench.redis.hexists("offhook:habits", "until")
