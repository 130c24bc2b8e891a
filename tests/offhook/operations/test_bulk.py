"""Bulk operations on dead letters: announced, undone, done, taken over."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count

import msgspec
import pytest
import redis as blocking

from offhook import CallEvent, queues
from offhook.connection import opened
from offhook.inbox import Inbox, keys
from offhook.operations import bulk, dead_letters
from offhook.operations.audit import changes
from offhook.operations.bulk import BulkOperation, BulkOperations, Kind
from offhook.operations.dead_letters import DeadLetter, Filter
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import event

EVENTS = [event(f"call-{n % 3}", n) for n in range(120)]


@pytest.fixture
async def inbox(configure: Configure) -> AsyncIterator[tuple[Inbox, blocking.Redis]]:
    configure('[handlers.crm]\nuse = "console"\n')
    async with opened(load_settings()) as (inbox, rq):
        for each in EVENTS:
            queues.bury(rq, "crm", each, attempt=1, error="503", trace="t")
        yield inbox, rq


@pytest.fixture
def operations(inbox: tuple[Inbox, blocking.Redis]) -> BulkOperations:
    return BulkOperations(*inbox)


async def make_due(inbox: Inbox, operation: BulkOperation) -> None:
    """Let the ten seconds be over."""
    due = msgspec.structs.replace(operation, due=datetime.now(UTC) - timedelta(seconds=1))
    await inbox.redis.hset(keys.OPERATIONS, operation.id, msgspec.json.encode(due))


async def state_of(operations: BulkOperations, operation: BulkOperation) -> tuple[str, int]:
    now = await operations.get(operation.id)
    assert now is not None
    return now.state, now.done


async def test_nothing_is_done_before_it_is_due(
    inbox: tuple[Inbox, blocking.Redis], operations: BulkOperations
) -> None:
    asked = await operations.ask("retry", Filter(handler="crm"), "ruth", 120)
    await operations.run_due()
    assert await state_of(operations, asked) == ("waiting", 0)
    assert dead_letters.counts(inbox[1], ["crm"]) == {"crm": 120}


async def test_retrying_puts_every_event_into_its_lane_in_order(
    inbox: tuple[Inbox, blocking.Redis], operations: BulkOperations
) -> None:
    asked = await operations.ask("retry", Filter(handler="crm"), "ruth", 120)
    await make_due(inbox[0], asked)
    steps: list[int] = []
    await operations.run_due(lambda: steps.append(1))
    assert await state_of(operations, asked) == ("done", 120)
    assert len(steps) >= 3
    assert dead_letters.counts(inbox[1], ["crm"]) == {"crm": 0}
    for call in ("main/call-0", "main/call-1", "main/call-2"):
        stored = await inbox[0].redis.lrange(keys.lane(0, "crm", call), 0, -1)
        ids = [msgspec.json.decode(each, type=CallEvent).id for each in stored]
        assert ids == [each.id for each in EVENTS if each.call == call]
    said = [(each.by, each.did) for each in await changes(inbox[0].redis)]
    assert said == [
        ("ruth", "retried 120 of 120 dead letters"),
        ("ruth", "asked to retry 120 dead letters"),
    ]


async def test_what_died_later_is_not_in_it(
    inbox: tuple[Inbox, blocking.Redis], operations: BulkOperations
) -> None:
    asked = await operations.ask("discard", Filter(handler="crm"), "ruth", 120)
    later = event("late", 999)
    queues.bury(inbox[1], "crm", later, attempt=1, error="503", trace="t")
    job = queues.queue(queues.dead_queue("crm"), inbox[1]).fetch_job(
        queues.dead_letter_id("crm", later.id)
    )
    assert job is not None
    job.meta["died"] = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    job.save_meta()  # type: ignore[no-untyped-call]
    await make_due(inbox[0], asked)
    await operations.run_due()
    assert [each.event.id for each in dead_letters.find(inbox[1])] == [later.id]


async def test_undone_in_time_it_does_nothing(
    inbox: tuple[Inbox, blocking.Redis], operations: BulkOperations
) -> None:
    asked = await operations.ask("discard", Filter(), "ruth", 120)
    undone = await operations.undo(asked.id, "tom")
    assert undone is not None
    assert undone.state == "undone"
    assert await operations.undo(asked.id, "ruth") == undone  # which changes nothing
    await make_due(inbox[0], undone)
    await operations.run_due()
    assert dead_letters.counts(inbox[1], ["crm"]) == {"crm": 120}
    assert (await changes(inbox[0].redis))[0].by == "tom"


async def test_a_running_one_stops_after_its_step(
    inbox: tuple[Inbox, blocking.Redis],
    operations: BulkOperations,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = await operations.ask("discard", Filter(), "ruth", 120)
    await make_due(inbox[0], asked)
    do, steps = operations._do, count(1)

    async def stopped_in_the_second(kind: Kind, letters: Sequence[DeadLetter]) -> int:
        if next(steps) == 2:
            await operations.undo(asked.id, "ruth")
        return await do(kind, letters)

    monkeypatch.setattr(operations, "_do", stopped_in_the_second)
    await operations.run_due()
    assert await state_of(operations, asked) == ("stopped", 50)
    # What is counted is gone, and so is the step that was being made.
    assert dead_letters.counts(inbox[1], ["crm"]) == {"crm": 20}


async def test_another_process_takes_over_what_was_left(
    inbox: tuple[Inbox, blocking.Redis], operations: BulkOperations
) -> None:
    asked = await operations.ask("retry", Filter(), "ruth", 120)
    await make_due(inbox[0], asked)
    first = list(dead_letters.find(inbox[1]))[:50]  # the other one died after its first step
    await dead_letters.retry(*inbox, first)
    await inbox[0].redis.set(keys.operation_lease(asked.id), "other")
    await operations.run_due()
    assert (await state_of(operations, asked))[0] == "waiting"  # it may still run
    await inbox[0].redis.delete(keys.operation_lease(asked.id))
    await operations.run_due()
    assert await state_of(operations, asked) == ("done", 70)
    assert dead_letters.counts(inbox[1], ["crm"]) == {"crm": 0}


async def test_it_stops_once_another_process_has_taken_it_over(
    inbox: tuple[Inbox, blocking.Redis], operations: BulkOperations
) -> None:
    asked = await operations.ask("discard", Filter(), "ruth", 120)
    await make_due(inbox[0], asked)
    lease = keys.operation_lease(asked.id)

    def take_over() -> None:
        inbox[1].set(lease, "other")

    await operations.run_due(take_over)
    assert await state_of(operations, asked) == ("running", 100)  # it notices after a step
    assert await inbox[0].redis.get(lease) == b"other"


async def test_old_operations_are_forgotten(
    inbox: tuple[Inbox, blocking.Redis],
    operations: BulkOperations,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = await operations.ask("retry", Filter(), "ruth", 120)
    await operations.undo(asked.id, "ruth")
    assert await operations.all()
    monkeypatch.setattr(bulk, "_KEEP", timedelta(seconds=-1))
    assert await operations.all() == []
    assert await operations.get(asked.id) is None


async def test_an_operation_that_ended_a_day_ago_is_not_shown(
    inbox: tuple[Inbox, blocking.Redis], operations: BulkOperations
) -> None:
    asked = await operations.ask("retry", Filter(), "ruth", 120)
    ended = datetime.now(UTC) - timedelta(days=1, minutes=5)
    old = msgspec.structs.replace(asked, state="undone", ended=ended)
    await inbox[0].redis.hset(keys.OPERATIONS, asked.id, msgspec.json.encode(old))
    assert await operations.all() == []
