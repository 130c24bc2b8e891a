"""`partitions` is changed while events wait, and none is left behind."""

import asyncio
import logging
import re
import signal
from pathlib import Path

import pytest

from offhook import queues
from offhook.connection import connect
from offhook.inbox import Inbox
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import batch_of, event
from tests.installation import Installation, Outcome, audit, wait_until
from tests.workers.test_redeliver import Bench, handler
from workers import supervisor
from workers.scheduler import Scheduler

HANDLERS = """
[handlers.first]
use = "tests.recorders:record"
[handlers.second]
use = "tests.recorders:park_some"
retry = [5]
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
        offhook.receiver, offhook.supervisor = offhook.start_receiver(), offhook.start_supervisor()
        wait_until(offhook.is_ready, "the receiver is ready again")
        later = offhook.load(100, name="later")
        outcome = Outcome()
        for each in (parked, unread, later):
            assert each.refused == 0
            outcome.accepted |= each.accepted
        assert _lanes(offhook) == 4, "the parked lanes are gone"
        offhook.wait_for_all(outcome, NAMES)
        for name in NAMES:
            audit(outcome, offhook.delivered(name), repeats=True)
        assert ("`partitions` was lowered to 1" in offhook.log.read_text()) == (after < before)


def _lanes(offhook: Installation) -> int:
    with offhook.client() as client:
        keys = client.keys("offhook:{*}:parked:second")
        return sum(client.hlen(key) for key in keys)


def test_redelivery_finds_its_lane_after_partitions_are_raised(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configure: Configure
) -> None:
    monkeypatch.setenv("RECORDINGS", str(tmp_path))
    configure(handler("record"))
    bench = Bench(redis_url, tmp_path)
    bench.park(*(event("a", n) for n in range(3)))
    configure(handler("record"), partitions=256)
    bench.work()
    assert bench.got() == ["0", "1", "2"]
    assert bench.lanes() == 0


def test_unserved_events_are_reported(
    redis_url: str, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    configure('[handlers.crm]\nuse = "console"\n', partitions=2)
    caplog.set_level(logging.INFO)

    async def go() -> None:
        async with connect(redis_url) as client:
            inbox = Inbox(client, 7)
            await inbox.ensure_cursor("crm", "now")
            batch = batch_of(*(event("a", n) for n in range(3)))
            for partition in (0, 5):
                batch = type(batch)("w", 1, partition, batch.marks, batch.events)
                await inbox.append(batch, ["crm"], 0)
            scheduler = Scheduler(load_settings(), Inbox(client, 2), bench.rq)
            await scheduler.round()
            scheduler.release()

    bench = Bench(redis_url, Path())
    asyncio.run(go())
    assert supervisor.leftover_partitions(load_settings()) == [5]
    told = [line for line in caplog.messages if "that no worker delivers" in line]
    assert len(told) == 1
    assert told[0].startswith(
        "partition 5, from before `partitions` was lowered, has events for crm"
    )
    for handlers in ([], ["crm"]):
        processes = supervisor.required_processes(load_settings(), [5], handlers)
        assert queues.dispatch_queue("crm", 5) in processes
