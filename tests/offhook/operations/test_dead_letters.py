"""Dead letters: found, retried in order, discarded, and safe from concurrent commands."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest

from offhook import CallEvent, Context, EventType, PermanentError, queues
from offhook.inbox import ParkedLanes, keys
from offhook.operations import dead_letters
from offhook.operations.dead_letters import DeadLetter, Filter
from tests.events import event
from tests.workers.serving.bench import Bench as Served


class Bench(Served):
    """Dead letters of the handler `crm`, and a server that redelivers them.

    Attributes:
        got: the deliveries: call, and number of the event in it.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.got: list[tuple[str, int]] = []

    def bury(self, *events: CallEvent, handler: str = "crm", error: str = "answered 410") -> None:
        for each in events:
            queues.bury(self.redis, handler, each, attempt=3, error=error, trace="Traceback: here")

    def find(self, **wanted: Any) -> list[DeadLetter]:
        return list(dead_letters.find(self.redis, Filter(**wanted)))

    async def retry(self, *letters: DeadLetter) -> int:
        retried: int = await self.with_inbox(
            lambda inbox: dead_letters.retry(inbox, self.redis, letters)
        )
        return retried

    async def rejoin_requeued(self) -> None:
        """As the scheduler does every minute."""
        await self.with_inbox(lambda inbox: dead_letters.rejoin_requeued(inbox, self.redis, "crm"))

    async def work(self) -> None:
        """Redeliver everything that is due."""
        async with self.serving(self._record):
            await self.all_done()

    async def _record(self, event: CallEvent, context: Context) -> None:
        self.got.append((event.call_id, int(event.parameters["n"])))


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    made = Bench(redis_url)
    yield made
    made.redis.close()


def test_a_dead_letter_has_all_its_details(bench: Bench) -> None:
    one = event(n=7)
    bench.bury(one)
    [letter] = bench.find()
    assert letter == DeadLetter(
        id=queues.dead_letter_id("crm", one.id),
        handler="crm",
        event=one,
        attempts=3,
        error="answered 410",
        died=letter.died,
    )
    assert abs(datetime.now(UTC) - letter.died) < timedelta(seconds=5)
    assert dead_letters.traceback(bench.redis, letter) == "Traceback: here"
    assert dead_letters.counts(bench.redis, ["crm", "log"]) == {"crm": 1, "log": 0}
    assert letter.as_dict()["event"] == one.as_dict()


async def test_a_dead_letter_of_a_later_version_holds_up_no_other(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    first, later, last = event("a", 1), event("b", 2), event("c", 3)
    bench.bury(first, last)
    stored = {**later.as_dict(), "type": "call-parked"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CallEvent, "as_dict", lambda self: stored)
        bench.bury(later)
    unreadable = queues.dead_letter_id("crm", later.id)
    assert [each.event for each in bench.find()] == [first, last]
    for each in queues.dead_registry(bench.redis, "crm").get_job_ids(cleanup=False):
        queues.dead_registry(bench.redis, "crm").requeue(each)
    await bench.rejoin_requeued()
    assert [each.id for each in queues.requeued(bench.redis, "crm")] == [unreadable]
    said = [each for each in caplog.messages if f"{unreadable} cannot be read" in each]
    assert len(said) == 2
    await bench.work()
    assert bench.got == [("a", 1), ("c", 3)]


async def test_a_retried_dead_letter_that_dies_again_says_why(bench: Bench) -> None:
    async def broken(event: CallEvent, context: Context) -> None:
        raise ValueError("this handler is broken")

    bench.bury(event())
    await bench.retry(*bench.find())
    async with bench.serving(broken, retry=[]):
        await bench.all_done()
    [letter] = bench.find()
    assert (letter.attempts, letter.error) == (1, "ValueError: this handler is broken")
    assert "in broken" in dead_letters.traceback(bench.redis, letter)


async def test_a_dead_letter_that_dies_again_during_the_retry_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.bury(event("a", 1), event("b", 2))
    letters = bench.find()
    rejoin = ParkedLanes.rejoin

    async def rejoin_and_die(lanes: ParkedLanes, events: Any) -> None:
        await rejoin(lanes, events)
        bench.bury(letters[0].event, error="answered 411")

    monkeypatch.setattr(ParkedLanes, "rejoin", rejoin_and_die)
    assert await bench.retry(*letters) == 2
    [letter] = bench.find()
    assert (letter.event, letter.error) == (letters[0].event, "answered 411")


def test_dead_letters_are_in_the_order_of_their_events(bench: Bench) -> None:
    events = [event(call, n) for n in range(3) for call in ("a", "b")]
    bench.bury(*reversed(events[1:]))
    bench.bury(events[0], handler="a-log")
    assert [letter.event.id for letter in bench.find()] == sorted(each.id for each in events)


def test_a_page_begins_after_the_one_before(bench: Bench) -> None:
    events = [event("a", n) for n in range(7)]
    for n, each in enumerate(events):
        bench.bury(each, handler=("crm", "acme/crm", "a-log")[n % 3])
    ids = [letter.id for letter in bench.find()]
    before = calls_of(bench, "smembers")
    for n, last in enumerate(ids):
        page = islice(dead_letters.find(bench.redis, after=last), 2)
        assert [letter.id for letter in page] == ids[n + 1 : n + 3]
    made = calls_of(bench, "smembers") - before
    assert made <= 2 * len(ids)  # the handlers are not listed once more for each dead letter


def calls_of(bench: Bench, command: str) -> int:
    stats: Any = bench.redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_heads_say_the_same_as_the_letters(bench: Bench) -> None:
    bench.bury(*(event("a", n) for n in range(3)))
    bench.bury(event("b"), handler="acme/crm", error="down")
    letters = bench.find()
    found = list(dead_letters.heads(bench.redis, Filter()))
    assert found == [(each.id, each.handler, each.error, each.died) for each in letters]
    for wanted in (
        Filter(error="down"),
        Filter(tenant="acme"),
        Filter(handler="crm"),
        Filter(until=letters[0].died - timedelta(seconds=1)),
        Filter(ids=frozenset({letters[1].id})),
    ):
        heads = list(dead_letters.heads(bench.redis, wanted))
        assert [each.id for each in heads] == [each.id for each in letters if each in wanted]


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


async def test_retried_dead_letters_are_delivered_and_gone(bench: Bench) -> None:
    bench.bury(event("a", 1), event("b", 2))
    assert await bench.retry(*bench.find()) == 2
    await bench.work()
    assert sorted(bench.got) == [("a", 1), ("b", 2)]
    assert bench.find() == []


def test_dead_letters_are_read_by_id(bench: Bench) -> None:
    events = [event(f"call-{n}", n) for n in range(3)]
    bench.bury(*events)
    bench.bury(events[0], handler="a-log")
    queues.call_scheduled(bench.redis, "workers.retention.delete_expired")
    [job] = queues.queue(queues.SCHEDULED, bench.redis).job_ids
    wanted = [queues.dead_letter_id("a-log", events[0].id)]
    wanted += [queues.dead_letter_id("crm", each.id) for each in events[::-1]]
    found = list(dead_letters.get(bench.redis, [*wanted[:2], "crm-none", job, *wanted[2:]]))
    assert [letter.id for letter in found] == wanted
    assert sorted(found, key=lambda letter: (letter.event.id, letter.handler)) == bench.find()
    dead_letters.discard(bench.redis, found[:1])
    assert list(dead_letters.get(bench.redis, wanted[:1])) == []


def test_one_that_is_being_redelivered_is_not_read(bench: Bench) -> None:
    bench.bury(event())
    [letter] = bench.find()
    queues.dead_registry(bench.redis, "crm").remove(letter.id)  # its job stays for a moment
    assert list(dead_letters.get(bench.redis, [letter.id])) == []


async def test_a_retry_keeps_the_order_of_a_call(bench: Bench) -> None:
    events = sorted((event("a", n) for n in range(5)), key=lambda each: each.id)
    bench.bury(*reversed(events))
    await bench.retry(*bench.find())
    await bench.work()
    assert bench.got == [("a", int(each.parameters["n"])) for each in events]


async def test_a_retry_queues_behind_what_its_call_waits_for(bench: Bench) -> None:
    first, second = event("a", 1), event("a", 2)
    bench.bury(first, second)
    letters = {letter.event.id: letter for letter in bench.find()}
    await bench.retry(letters[second.id])
    await bench.retry(letters[first.id])
    assert bench.find() == []
    await bench.work()
    assert bench.got == [("a", 2), ("a", 1)]


async def test_a_second_retry_changes_nothing(bench: Bench) -> None:
    bench.bury(event("a", 1))
    letters = bench.find()
    assert [await bench.retry(*letters), await bench.retry(*letters)] == [1, 0]
    await bench.work()
    assert bench.got == [("a", 1)]


async def test_concurrent_retries_deliver_once(bench: Bench) -> None:
    bench.bury(*(event(f"call-{n}", n) for n in range(50)))
    letters = bench.find()
    await asyncio.gather(*(bench.retry(*letters) for _ in range(3)))
    await bench.work()
    assert sorted(n for _, n in bench.got) == list(range(50))
    assert bench.find() == []


@pytest.mark.parametrize(
    "killed_in", ["ParkedLanes.rejoin", "_delete"], ids=["before the lane", "before the deletion"]
)
async def test_a_command_killed_halfway_loses_nothing(
    bench: Bench, killed_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.bury(event("a", 1), event("a", 2))
    letters = bench.find()
    with monkeypatch.context() as patch:
        patch.setattr(f"offhook.operations.dead_letters.{killed_in}", _kill)
        with pytest.raises(SystemError):
            await bench.retry(*letters)
    assert bench.find() == []
    await bench.retry(*letters)  # the operator tries again
    await bench.rejoin_requeued()
    await bench.work()
    assert bench.got == [("a", 1), ("a", 2)]
    assert bench.find() == []
    assert bench.redis.keys(f"rq:*{letters[0].id}*") == []


async def test_a_retried_event_is_not_dead_while_its_letter_is_deleted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.bury(event("a", 1))
    rejoin = ParkedLanes.rejoin

    async def then_a_server_dies(lanes: ParkedLanes, events: Any) -> None:
        await rejoin(lanes, events)
        bench.redis.zrem(keys.due(0), "crm main/a")
        bench.redis.sadd(keys.redelivering(0), "crm main/a")
        await bench.work()  # as the next one, which finds an attempt that has begun

    monkeypatch.setattr(ParkedLanes, "rejoin", then_a_server_dies)
    assert await bench.retry(*bench.find()) == 1
    assert bench.got == [("a", 1)]
    assert bench.find() == []


async def test_a_requeued_letter_that_dies_again_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.bury(event("a", 1))
    [letter] = bench.find()
    with monkeypatch.context() as patch:
        patch.setattr(dead_letters, "_delete", _kill)
        with pytest.raises(SystemError):
            await bench.retry(letter)
    rejoin = ParkedLanes.rejoin

    async def rejoin_and_die(lanes: ParkedLanes, events: Any) -> None:
        await rejoin(lanes, events)
        bench.bury(letter.event, error="answered 411")

    monkeypatch.setattr(ParkedLanes, "rejoin", rejoin_and_die)
    await bench.rejoin_requeued()
    assert [each.error for each in bench.find()] == ["answered 411"]
    assert queues.requeued(bench.redis, "crm") == []


def _kill(*arguments: object, **named: object) -> None:
    raise SystemError("killed")


def test_a_discarded_dead_letter_is_gone(bench: Bench) -> None:
    bench.bury(event("a", 1), event("b", 2))
    first, second = bench.find()
    assert dead_letters.discard(bench.redis, [first]) == 1
    assert bench.find() == [second]
    assert dead_letters.discard(bench.redis, [first]) == 0
    assert bench.redis.keys(f"rq:*{first.id}*") == []


async def test_a_dead_letter_being_redelivered_cannot_be_discarded(bench: Bench) -> None:
    bench.bury(event("a", 1))
    letters = bench.find()
    await bench.retry(*letters)
    assert dead_letters.discard(bench.redis, letters) == 0
    await bench.work()
    assert bench.got == [("a", 1)]


def test_a_discard_does_not_delete_what_died_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.bury(event("a", 1), event("b", 2))
    letters = bench.find()
    made, looks = dead_letters._made, iter(range(10))

    def overtaken(*arguments: Any, **named: Any) -> dict[str, bytes]:
        found = made(*arguments, **named)
        if next(looks) == 1:  # between the look and the deletion
            bench.bury(letters[0].event, error="answered 411")
        return found

    monkeypatch.setattr(dead_letters, "_made", overtaken)
    assert dead_letters.discard(bench.redis, letters) == 1
    assert [letter.error for letter in bench.find()] == ["answered 411"]


async def test_many_dead_letters_are_retried_in_batches_and_in_order(bench: Bench) -> None:
    calls, per_call = 120, 10
    events = [event(f"call-{call}", n) for n in range(per_call) for call in range(calls)]
    _bury_fast(bench, events)
    done: list[int] = []
    letters = bench.find()
    retried = await bench.with_inbox(
        lambda inbox: dead_letters.retry(inbox, bench.redis, letters, done.append)
    )
    assert (retried, done, bench.find()) == (1200, [500, 1000, 1200], [])
    assert bench.lane("call-7") == [str(n) for n in range(per_call)]


def _bury_fast(bench: Bench, events: list[CallEvent]) -> None:
    queue = queues.queue(queues.dead_queue("crm"), bench.redis)
    with bench.redis.pipeline() as pipeline:
        for each in events:
            job = queue.create_job(
                "workers.redeliver.redeliver",
                args=("crm", each.as_dict()),
                job_id=queues.dead_letter_id("crm", each.id),
                meta={"attempt": 1, "error": "no", "died": datetime.now(UTC).isoformat()},
            )
            job.save(pipeline=pipeline)
            pipeline.zadd(queue.failed_job_registry.key, {job.id: 9e9})
        pipeline.sadd(queue.redis_queues_keys, queue.key)
        pipeline.execute()


def test_only_the_dead_letters_that_are_taken_are_read(bench: Bench) -> None:
    bench.bury(*(event(f"call-{n}", n) for n in range(600)))
    before = calls_of(bench, "hmget")
    next(dead_letters.find(bench.redis))
    assert calls_of(bench, "hmget") - before == 500
    assert len(bench.find()) == 600


async def test_a_permanent_error_of_a_retry_is_a_dead_letter_at_once(bench: Bench) -> None:
    async def refuse(event: CallEvent, context: Context) -> None:
        raise PermanentError("answered 410")

    bench.bury(event("a", 1), event("a", 2))
    await bench.retry(*bench.find())
    async with bench.serving(refuse):
        await bench.all_done()
    assert [letter.attempts for letter in bench.find()] == [1, 1]
