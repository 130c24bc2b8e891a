"""Redelivery by a real RQ worker with a real server: attempts, order per call, dead letters."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import redis as blocking
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from offhook import CallEvent, ExtensionSettings, queues
from offhook.connection import connect
from offhook.extensions import Extensions
from offhook.inbox import Cursor, Inbox, ParkedLanes
from offhook.plugins import plug_handler
from offhook.settings import load_settings
from offhook.testing import sample_event
from tests.conftest import Configure
from tests.events import batch_of, event
from workers import dispatch
from workers.scheduler import Scheduler

QUEUE = queues.redeliver_queue("crm")


class Bench:
    """A parked lane of the handler `crm`, and its redelivery."""

    def __init__(self, url: str, recordings: Path) -> None:
        self.url = url
        self.rq = blocking.Redis.from_url(url)
        self._recordings = recordings / "crm"

    def with_inbox(self, go: Callable[[Inbox], Awaitable[None]]) -> None:
        async def run() -> None:
            client = connect(self.url)
            await go(Inbox(client, 1))
            await client.aclose()

        asyncio.run(run())

    def park(self, *events: CallEvent, enqueue: bool = True) -> None:
        """Park these as if the first had failed in dispatch."""

        async def go(inbox: Inbox) -> None:
            await inbox.ensure_cursor("crm", "now")
            await inbox.append(batch_of(*events), [], 60)
            cursor = Cursor(inbox, "crm", 0)
            await cursor.take()
            for entry in await cursor.read(100, 10):
                await cursor.park(entry, 1)
            await cursor.rest()

        self.with_inbox(go)
        if enqueue:
            queues.redeliver(self.rq, "crm", events[0], delay=0)

    def work(self) -> None:
        """Run all jobs that are due now, and those that they enqueue."""
        worker = SimpleWorker(
            [queues.queue(QUEUE, self.rq)], connection=self.rq, serializer=JSONSerializer
        )
        worker.work(burst=True, logging_level="CRITICAL")

    def schedule(self, rounds: int = 1) -> None:
        async def go(inbox: Inbox) -> None:
            scheduler = Scheduler(load_settings(), inbox, self.rq)
            for _ in range(rounds):
                scheduler._lanes_at = 0
                await scheduler.round()
            scheduler.release()

        self.with_inbox(go)

    def got(self) -> list[str]:
        if not self._recordings.exists():
            return []
        return [line.split()[2] for line in self._recordings.read_text().splitlines()]

    def dead(self) -> list[str]:
        return list(queues.queue(QUEUE, self.rq).failed_job_registry.get_job_ids())

    def scheduled(self) -> list[str]:
        return list(queues.queue(QUEUE, self.rq).scheduled_job_registry.get_job_ids())

    def lanes(self) -> int:
        return int(self.rq.hlen("offhook:{0}:parked:crm"))


@pytest.fixture
def bench(
    redis_url: str, tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    monkeypatch.setenv("RECORDINGS", str(tmp_path))
    made = Bench(redis_url, tmp_path)
    yield made
    made.rq.close()


def handler(name: str, retry: str = "[1]") -> str:
    return f'[handlers.crm]\nuse = "tests.recorders:{name}"\nretry = {retry}\n'


def test_lane_is_delivered_in_order_and_then_free(bench: Bench, configure: Configure) -> None:
    configure(handler("record"))
    bench.park(*(event("a", n) for n in range(4)))
    bench.work()
    assert bench.got() == ["0", "1", "2", "3"]
    assert (bench.lanes(), bench.dead(), bench.scheduled()) == (0, [], [])


def test_failed_redelivery_is_retried_after_its_wait(bench: Bench, configure: Configure) -> None:
    configure(handler("fail_twice", "[1, 1, 1]"))
    bench.park(event("a", 0), event("a", 1))
    bench.work()  # the second attempt at the first event
    assert bench.got() == []
    assert len(bench.scheduled()) == 1
    for _ in range(4):
        time.sleep(1.3)
        bench.schedule()
        bench.work()
    assert bench.got() == ["0", "1"]
    assert bench.lanes() == 0


def test_last_failed_attempt_makes_a_dead_letter(bench: Bench, configure: Configure) -> None:
    configure(handler("refuse_the_first"))
    first = event("a", 0)
    bench.park(first, event("a", 1))
    bench.work()
    assert bench.got() == ["1"]
    assert bench.dead() == [queues.redelivery_id("crm", first.id)]
    job = queues.queue(QUEUE, bench.rq).fetch_job(bench.dead()[0])
    assert job is not None
    assert job.meta["error"] == "the first one never"
    assert job.args[1]["id"] == first.id
    result = job.latest_result()
    assert result is not None
    assert "PermanentError" in str(result.exc_string)


def test_failing_handler_gets_the_configured_attempts(bench: Bench, configure: Configure) -> None:
    configure(handler("always_raise", "[1, 1]"))
    bench.park(event("a", 0))
    bench.work()
    assert (len(bench.scheduled()), len(bench.dead())) == (1, 0)  # after two attempts
    time.sleep(1.3)
    bench.schedule()
    bench.work()
    assert (len(bench.scheduled()), len(bench.dead())) == (0, 1)  # after three attempts
    assert bench.lanes() == 0


def test_dead_letter_survives_a_kill_before_rq_records_it(
    bench: Bench, configure: Configure
) -> None:
    configure(handler("record"))
    one = event("a", 0)
    bench.park(one)

    async def die_half_way(inbox: Inbox) -> None:
        queues.bury(bench.rq, "crm", one, attempt=6, error="no", trace="no")
        await ParkedLanes(inbox, "crm").advance(one, "dead")

    bench.with_inbox(die_half_way)
    # RQ enqueues the job of a killed process again.
    queue = queues.queue(QUEUE, bench.rq)
    job = queue.fetch_job(queues.redelivery_id("crm", one.id))
    assert job is not None
    queue.enqueue_job(job)
    bench.work()
    assert bench.dead() == [queues.redelivery_id("crm", one.id)]
    assert bench.got() == []


def test_job_that_runs_twice_delivers_once(bench: Bench, configure: Configure) -> None:
    configure(handler("record"))
    one = event("a", 0)
    bench.park(one)
    bench.work()
    queues.redeliver(bench.rq, "crm", one, delay=0)
    bench.work()
    assert bench.got() == ["0"]


def test_open_circuit_prevents_attempts(bench: Bench, configure: Configure) -> None:
    configure(handler("record"))
    bench.park(event("a", 0))
    bench.rq.set("offhook:{0}:circuit:crm", "open", px=1500)
    bench.work()
    assert bench.got() == []
    time.sleep(2.5)
    bench.schedule()
    bench.work()
    assert bench.got() == ["0"]


def test_failed_attempt_does_not_count_while_the_target_is_down(
    bench: Bench, configure: Configure
) -> None:
    configure(handler("never_now", "[1]"))
    bench.park(event("a", 0), event("a", 1))
    bench.rq.set("offhook:{0}:failing:crm", 5)  # and the circuit has just become half-open
    bench.work()  # this would be the last attempt
    assert (bench.dead(), len(bench.scheduled())) == ([], 1)
    assert bench.rq.hgetall("offhook:{0}:attempts:crm") == {b"main/a": b"1"}
    assert 50_000 < bench.rq.pttl("offhook:{0}:circuit:crm") <= 60_000  # that was the probe
    bench.rq.delete("offhook:{0}:failing:crm", "offhook:{0}:circuit:crm")  # the target is back
    [job_id] = bench.scheduled()
    queues.queue(QUEUE, bench.rq).scheduled_job_registry.remove(job_id)
    bench.schedule(rounds=3)
    bench.work()
    assert len(bench.dead()) == 1


def test_successful_redelivery_closes_the_circuit(bench: Bench, configure: Configure) -> None:
    configure(handler("record"))
    bench.park(event("a", 0))
    bench.rq.set("offhook:{0}:failing:crm", 5)
    bench.work()
    assert bench.got() == ["0"]
    assert bench.rq.exists("offhook:{0}:failing:crm", "offhook:{0}:circuit:crm") == 0


def test_lane_that_lost_its_job_gets_a_new_one(bench: Bench, configure: Configure) -> None:
    configure(handler("record"))
    bench.park(event("a", 0), enqueue=False)
    bench.schedule(rounds=1)  # its job may be about to be enqueued
    bench.work()
    assert bench.got() == []
    bench.schedule(rounds=2)
    bench.work()
    assert bench.got() == ["0"]


def test_configuration_error_costs_no_event(bench: Bench, configure: Configure) -> None:
    configure('[handlers.crm]\nuse = "tests.recorders:no_such_function"\n')
    bench.park(event("a", 0))
    bench.work()
    assert len(bench.scheduled()) == 1
    assert bench.dead() == []
    assert bench.lanes() == 1


def test_redelivery_has_the_extension_and_ignores_filters(
    bench: Bench, configure: Configure
) -> None:
    configure(handler("record_owner"))

    async def set_up(inbox: Inbox) -> None:
        settings = ExtensionSettings(handlers=("chat",), owner="jane")
        await Extensions(inbox.redis).change({("main", "0003*210"): settings})

    bench.with_inbox(set_up)
    bench.park(event("a", 0))
    bench.work()
    assert bench.got() == ["jane"]
    assert bench.lanes() == 0


def test_handler_memory_is_shared_by_dispatch_and_redelivery(
    bench: Bench, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(handler("remember"))
    bench.park(event("a", 1))
    bench.work()
    assert bench.rq.get("offhook:memory:crm:calls") == b"1"
    monkeypatch.setattr(dispatch, "QUIET", 0.2)
    bench.with_inbox(_append_one)
    settings = load_settings()
    crm = plug_handler("crm", settings.handlers["crm"])
    asyncio.run(dispatch.serve_cursor(settings, crm, 0))
    assert bench.rq.get("offhook:memory:crm:calls") == b"12"


async def _append_one(inbox: Inbox) -> None:
    await inbox.append(batch_of(event("b", 2)), [], 60)


def test_redelivered_event_has_the_name_from_a_lookup(
    bench: Bench, configure: Configure, tmp_path: Path
) -> None:
    (tmp_path / "contacts.csv").write_text("number,name\n+40 21 123 4567,Jane of Acme\n")
    lookups = f'''
[lookups.gone]
use = "no_such_module:Lookup"
[lookups.broken]
use = "tests.offhook.lookups:Broken"
[lookups.contacts]
use = "csv"
options.path = "{tmp_path}/contacts.csv"
'''
    configure(handler("record_names") + lookups)
    bench.park(sample_event("dial-in"))
    bench.work()
    assert (tmp_path / "crm").read_text() == "Jane of Acme, Jane of Acme, Jane Doe\n"
    assert (bench.lanes(), bench.dead(), bench.scheduled()) == (0, [], [])
