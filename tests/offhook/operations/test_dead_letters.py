"""Dead letters: found, retried in order, discarded, and safe from concurrent commands."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis as blocking
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from offhook import CallEvent, EventType, queues
from offhook.connection import connect
from offhook.inbox import Inbox, ParkedLanes
from offhook.operations import dead_letters
from offhook.operations.dead_letters import DeadLetter, Filter
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import event
from workers.scheduler import Scheduler

T = TypeVar("T")

RECORD = '[handlers.crm]\nuse = "tests.recorders:record"\nretry = []\n'
BROKEN = '[handlers.crm]\nuse = "tests.recorders:always_raise"\nretry = []\n'


class Bench:
    """Dead letters of the handler `crm`, and the worker that redelivers them."""

    def __init__(self, url: str, recordings: Path) -> None:
        self.url = url
        self.rq = blocking.Redis.from_url(url)
        self._recordings = recordings / "crm"

    def bury(self, *events: CallEvent, handler: str = "crm", error: str = "answered 410") -> None:
        for each in events:
            queues.bury(self.rq, handler, each, attempt=3, error=error, trace="Traceback: here")

    def find(self, **wanted: Any) -> list[DeadLetter]:
        return dead_letters.find(self.rq, Filter(**wanted))

    def retry(self, *letters: DeadLetter) -> list[bool]:
        async def go(inbox: Inbox) -> list[bool]:
            return [await dead_letters.retry(inbox, self.rq, letter) for letter in letters]

        return self.with_inbox(go)

    def with_inbox(self, go: Callable[[Inbox], Awaitable[T]]) -> T:
        async def run() -> T:
            client = connect(self.url)
            try:
                return await go(Inbox(client, 1))
            finally:
                await client.aclose()

        return asyncio.run(run())

    def work(self) -> None:
        """Run every redelivery that is due, and those that follow."""
        worker = SimpleWorker(
            [queues.queue(queues.redeliver_queue("crm"), self.rq)],
            connection=self.rq,
            serializer=JSONSerializer,
        )
        worker.work(burst=True, logging_level="CRITICAL")

    def revive(self) -> None:
        """Do what the scheduler does in its next two rounds."""

        async def go(inbox: Inbox) -> None:
            scheduler = Scheduler(load_settings(), inbox, self.rq)
            await scheduler.revive_lanes(["crm"])
            await scheduler.revive_lanes(["crm"])

        self.with_inbox(go)

    def waiting(self) -> int:
        async def go(inbox: Inbox) -> int:
            return len(await ParkedLanes(inbox, "crm").parked(0))

        return self.with_inbox(go)

    def got(self) -> list[tuple[str, int]]:
        """The deliveries: call, and number of the event in it."""
        if not self._recordings.exists():
            return []
        lines = [line.split() for line in self._recordings.read_text().splitlines()]
        return [(call, int(n)) for _, call, n in lines]


@pytest.fixture
def bench(
    redis_url: str, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    monkeypatch.setenv("RECORDINGS", str(tmp_path))
    configure(RECORD)
    made = Bench(redis_url, tmp_path)
    yield made
    made.rq.close()


def test_a_dead_letter_has_all_its_details(bench: Bench) -> None:
    one = event(n=7)
    bench.bury(one)
    [letter] = bench.find()
    assert letter == DeadLetter(
        id=queues.redelivery_id("crm", one.id),
        handler="crm",
        event=one,
        attempts=3,
        error="answered 410",
        died=letter.died,
    )
    assert abs(datetime.now(UTC) - letter.died) < timedelta(seconds=5)
    assert dead_letters.traceback(bench.rq, letter) == "Traceback: here"
    assert dead_letters.count(bench.rq, "crm") == 1
    assert letter.as_dict()["event"] == one.as_dict()


def test_a_failed_redelivery_is_a_dead_letter_with_its_stack_trace(
    bench: Bench, configure: Configure
) -> None:
    configure(BROKEN)
    bench.bury(event())
    bench.retry(*bench.find())
    bench.work()
    [letter] = bench.find()
    assert (letter.attempts, letter.error) == (1, "ValueError: this handler is broken")
    assert "tests/recorders.py" in dead_letters.traceback(bench.rq, letter)


def test_dead_letters_are_in_the_order_of_their_events(bench: Bench) -> None:
    events = [event(call, n) for n in range(3) for call in ("a", "b")]
    ids = sorted(each.id for each in events)
    bench.bury(*reversed(events))
    assert [letter.event.id for letter in bench.find()] == ids


def test_dead_letters_of_removed_handlers_are_found(bench: Bench) -> None:
    bench.bury(event(), handler="old-one")
    assert [letter.handler for letter in bench.find()] == ["old-one"]


def test_a_filter_selects_by_each_of_its_fields(bench: Bench) -> None:
    one = event("call-1")
    bench.bury(one)
    bench.bury(
        event("call-2", type=EventType.HANGUP, extension="0003*299", pbx="other"), handler="chat"
    )
    assert len(bench.find()) == 2
    filters: list[dict[str, Any]] = [
        {"handler": "crm"},
        {"call": "call-1"},
        {"call": "main/call-1"},
        {"extension": "0003*210"},
        {"type": EventType.DIAL_IN},
    ]
    for wanted in filters:
        assert [letter.event for letter in bench.find(**wanted)] == [one], wanted


def test_a_filter_selects_by_the_time_of_the_last_attempt(bench: Bench) -> None:
    bench.bury(event())
    [letter] = bench.find()
    assert bench.find(since=letter.died) == [letter]
    assert bench.find(since=letter.died + timedelta(seconds=1)) == []


def test_retried_dead_letters_are_delivered_and_gone(bench: Bench) -> None:
    bench.bury(event("a", 1), event("b", 2))
    assert bench.retry(*bench.find()) == [True, True]
    bench.work()
    assert sorted(bench.got()) == [("a", 1), ("b", 2)]
    assert bench.find() == []
    assert bench.waiting() == 0


def test_a_retry_keeps_the_order_of_a_call(bench: Bench) -> None:
    events = sorted((event("a", n) for n in range(5)), key=lambda each: each.id)
    numbers = [int(each.parameters["n"]) for each in events]
    bench.bury(*reversed(events))
    bench.retry(*bench.find())
    bench.work()
    assert bench.got() == [("a", n) for n in numbers]


def test_a_retry_queues_behind_what_its_call_waits_for(bench: Bench) -> None:
    first, second = event("a", 1), event("a", 2)
    bench.bury(first, second)
    letters = {letter.event.id: letter for letter in bench.find()}
    bench.retry(letters[second.id], letters[first.id])
    assert bench.find() == []
    bench.work()
    assert bench.got() == [("a", 2), ("a", 1)]


def test_a_second_retry_changes_nothing(bench: Bench) -> None:
    bench.bury(event("a", 1))
    letters = bench.find()
    assert bench.retry(*letters, *letters) == [True, False]
    bench.work()
    assert bench.got() == [("a", 1)]
    assert bench.retry(*letters) == [False]


def test_concurrent_retries_deliver_once(bench: Bench) -> None:
    bench.bury(*(event(f"call-{n}", n) for n in range(50)))
    letters = bench.find()

    async def go(inbox: Inbox) -> None:
        again = [dead_letters.retry(inbox, bench.rq, letter) for letter in letters * 2]
        await asyncio.gather(*again)

    bench.with_inbox(go)
    bench.work()
    bench.revive()
    bench.work()
    assert sorted(n for _, n in bench.got()) == list(range(50))
    assert (bench.find(), bench.waiting()) == ([], 0)


@pytest.mark.parametrize(
    "killed_in", ["offhook.queues.redeliver", "offhook.operations.dead_letters.discard"]
)
def test_a_command_killed_halfway_loses_nothing(
    bench: Bench, killed_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.bury(event("a", 1), event("a", 2))
    letters = bench.find()
    with monkeypatch.context() as patch:
        patch.setattr(killed_in, _kill)
        with pytest.raises(KeyboardInterrupt):
            bench.retry(*letters)
    bench.retry(*letters)  # the operator tries again
    bench.revive()
    bench.work()
    assert sorted(set(bench.got())) == [("a", 1), ("a", 2)]
    assert (bench.find(), bench.waiting()) == ([], 0)


def _kill(*arguments: object, **named: object) -> None:
    raise KeyboardInterrupt


def test_a_discarded_dead_letter_is_gone(bench: Bench) -> None:
    bench.bury(event("a", 1), event("b", 2))
    first, second = bench.find()
    assert dead_letters.discard(bench.rq, first)
    assert bench.find() == [second]
    assert not dead_letters.discard(bench.rq, first)
    assert not bench.rq.exists(f"rq:job:{first.id}", f"rq:results:{first.id}")


def test_a_dead_letter_being_redelivered_cannot_be_discarded(bench: Bench) -> None:
    bench.bury(event("a", 1))
    letters = bench.find()
    bench.retry(*letters)
    assert not dead_letters.discard(bench.rq, letters[0])
    bench.work()
    assert bench.got() == [("a", 1)]


def test_a_discard_concurrent_with_a_retry_keeps_the_redelivery(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.bury(event("a", 1))
    [letter] = bench.find()
    is_dead = queues.is_dead

    def overtaken(*arguments: Any) -> bool:
        dead = is_dead(*arguments)
        monkeypatch.setattr(queues, "is_dead", is_dead)
        bench.retry(letter)
        return dead

    monkeypatch.setattr(queues, "is_dead", overtaken)
    assert not dead_letters.discard(bench.rq, letter)
    bench.work()
    assert bench.got() == [("a", 1)]


def test_thousands_of_dead_letters_are_found(bench: Bench) -> None:
    events = [event(f"call-{n}", n) for n in range(1201)]
    bench.bury(*events)
    assert len(bench.find()) == 1201
    assert [letter.event for letter in bench.find(call="call-7")] == [events[7]]
