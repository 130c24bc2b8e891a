"""`partitions` is changed while events wait, and none is left behind."""

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from offhook import CallEvent, Context
from offhook.connection import opened
from offhook.inbox import partition_of
from offhook.operations.status import status
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import event
from tests.installation import Installation, Outcome, audit, wait_until
from tests.workers.serving.bench import Bench
from tests.workers.serving.test_redeliveries import park
from workers.scheduler import Scheduler

HANDLERS = """
[handlers.first]
use = "tests.recorders:record"
[handlers.second]
use = "tests.recorders:park_some"
retry = [8]
"""
NAMES = ["first", "second"]


@pytest.mark.parametrize(("before", "after"), [(4, 1), (1, 4)])
def test_events_are_delivered_when_partitions_change(
    tmp_path: Path, before: int, after: int
) -> None:
    with Installation.running(tmp_path, HANDLERS, partitions=before) as offhook:
        parked = offhook.load(8, per_call=2, name="parked")
        wait_until(lambda: _lanes(offhook) == 4, "some wait for a redelivery")
        offhook.supervisor.send_signal(signal.SIGTERM)
        assert offhook.supervisor.wait(30) == 0
        unread = offhook.load(400, name="unread")
        offhook.receiver.send_signal(signal.SIGTERM)
        offhook.receiver.wait(30)
        config = offhook.folder / "offhook.toml"
        config.write_text(re.sub(r"partitions = \d", f"partitions = {after}", config.read_text()))
        offhook.receiver = offhook.start_receiver()
        wait_until(offhook.is_ready, "the receiver is ready again")
        assert _lanes(offhook) == 4, "the parked lanes are gone"
        offhook.supervisor = offhook.start_supervisor()
        later = offhook.load(100, name="later")
        outcome = Outcome()
        for each in (parked, unread, later):
            assert each.refused == 0
            outcome.accepted |= each.accepted
        offhook.wait_for_all(outcome, NAMES)
        for name in NAMES:
            audit(outcome, offhook.delivered(name), repeats=True)
        assert f"`partitions` was changed from {before} to {after}" in offhook.log.read_text()


def _lanes(offhook: Installation) -> int:
    with offhook.client() as client:
        return sum(client.hlen(key) for key in client.keys("offhook:{*}:parked"))


async def test_parked_lane_is_found_after_partitions_are_raised(redis_url: str) -> None:
    bench, got = Bench(redis_url), list[str]()

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])

    bench.plug(handle)
    await park(bench, *(event("a", n) for n in range(3)))
    raised = Bench(redis_url, partitions=16)
    raised.plug(handle)
    async with raised.serving():
        await raised.all_done()
    assert got == ["0", "1", "2"]
    assert raised.parked() == 0


async def test_leftover_partitions_are_served_until_nothing_is_left(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    earlier, got = Bench(redis_url, partitions=7), list[str]()

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])

    earlier.plug(handle)
    events = [event(f"c{n}", n) for n in range(40)]
    assert {partition_of(each, 7) for each in events} == set(range(7))
    await earlier.append(*events)
    lowered = Bench(redis_url, partitions=2)
    lowered.plug(handle)
    async with lowered.serving():
        await earlier.finished()
    assert sorted(map(int, got)) == list(range(40))
    assert "`partitions` was lowered to 2: partition 2, 3, 4, 5, 6 has" in caplog.text
    for number in range(2, 7):  # the calls of these have ended
        earlier.redis.delete(*(earlier.key(name, number) for name in ("live", "settling")))
    assert await lowered.with_inbox(lambda inbox: inbox.leftover()) == []
    assert await lowered.with_inbox(lambda inbox: inbox.beyond()) == [2, 3, 4, 5, 6]


async def test_status_reports_leftover_partitions_that_are_not_served(
    redis_url: str, configure: Configure
) -> None:
    configure('[handlers.crm]\nuse = "console"\n', partitions=2)
    bench = Bench(redis_url, partitions=7)
    bench.change(handlers=load_settings().handlers)
    await bench.append(*(event(f"c{n}", n) for n in range(40)))
    for number in (0, 1, 2, 3, 5, 6):
        bench.redis.set(bench.key("serving", number), "a process")
    bench.redis.delete(bench.key("unfinished", 3))
    async with opened(load_settings()) as (inbox, rq):
        assert (await status(inbox, rq, load_settings())).unserved == {"offhook.serve": [4]}


async def test_finished_events_of_leftover_partitions_are_deleted(
    redis_url: str, configure: Configure
) -> None:
    configure('[handlers.crm]\nuse = "console"\n', partitions=1)
    bench = Bench(redis_url, partitions=2)
    bench.change(handlers=load_settings().handlers)
    await bench.append(*(event(f"c{n}", n) for n in range(600)))
    for number in range(2):
        newest: Any = bench.redis.xrevrange(bench.key("inbox", number), count=1)
        [(last, _)] = newest
        bench.redis.delete(bench.key("behind", number))
        for name in ("read", "folded"):
            bench.redis.hset(bench.key(name, number), "", last)
    async with opened(load_settings()) as (inbox, rq):
        await Scheduler(load_settings(), inbox, rq).make_room()
    assert bench.redis.xlen(bench.key("inbox", 1)) < 100
