"""The calls of the inbox on a real server: saved together, and listed while they go on."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from offhook import EventType
from offhook.calls import fold
from offhook.connection import connect
from offhook.errors import FoldMoved, LeaseLost
from offhook.inbox import Inbox, keys
from offhook.inbox.call_store import CallChange, Calls, CallSave, Kept, caught_up
from offhook.inbox.partition import Partition
from tests.events import batch_of, event

MOST = 1_500  # 500 events that each begin another call with the CallID of two calls


@pytest.fixture
async def inbox(redis_url: str) -> AsyncIterator[Inbox]:
    async with connect(redis_url) as client:
        yield Inbox(client, 1)


async def leased(inbox: Inbox) -> Partition:
    partition = Partition(inbox.redis, inbox.redis, 0)
    assert await partition.lease.take() == 0
    return partition


def change(name: str, *, settles: int | None = None, live: int | None = None) -> CallChange:
    one = event()
    kept = Kept(f"main/{name}", fold(None, one), "1-1", "1-2", 0)
    return CallChange(kept, [one], settles, live)


async def test_as_many_calls_as_500_events_can_change_are_saved_together(inbox: Inbox) -> None:
    calls, partition = Calls(inbox), await leased(inbox)
    changes = [change(f"{n}", settles=2_000 + n, live=1_000 + n) for n in range(MOST)]
    await calls.save(partition, [CallSave("", changes, None, 30)])
    names = [each.kept.name for each in changes]
    assert await calls.load(0, names) == {each.kept.name: each.kept for each in changes}
    assert await calls.live() == MOST
    assert await calls.settling(0) == {name: 2_000 + n for n, name in enumerate(names)}
    assert await inbox.redis.zcard(keys.calls(0)) == MOST
    assert await inbox.redis.xlen(keys.inbox(0)) == MOST
    await calls.save(partition, [CallSave("", [change(f"{n}") for n in range(MOST)], None, 30)])
    assert await calls.live() == 0
    assert await calls.settling(0) == {}


async def test_calls_of_one_save_are_listed_each_as_it_is(inbox: Inbox) -> None:
    calls, partition = Calls(inbox), await leased(inbox)
    changes = [change("rings", live=1), change("hung up", live=2, settles=3), change("closed")]
    await calls.save(partition, [CallSave("", changes, None, 30)])
    assert await inbox.redis.zrange(keys.live(0), 0, -1, withscores=True) == [
        (b"main/rings", 1),
        (b"main/hung up", 2),
    ]
    assert await calls.settling(0) == {"main/hung up": 3}
    assert await inbox.redis.zcard(keys.calls(0)) == 3


async def test_saves_of_several_tenants_are_a_step_each(inbox: Inbox) -> None:
    calls, partition = Calls(inbox), await leased(inbox)
    a = CallSave("a", [change("1")], (b"0-0", b"5-1"), 30)
    b = CallSave("b", [change("2")], (b"0-0", b"6-1"), 30)
    await calls.save(partition, [a, b])
    assert await inbox.redis.hgetall(keys.folded(0)) == {b"a": b"5-1", b"b": b"6-1"}
    following = CallSave("b", [change("3")], (b"6-1", b"7-1"), 30)
    with pytest.raises(FoldMoved, match="5-1"):
        await calls.save(partition, [a, following])
    assert await inbox.redis.hgetall(keys.folded(0)) == {b"a": b"5-1", b"b": b"7-1"}
    assert await inbox.redis.zcard(keys.calls(0, "b")) == 2
    await inbox.redis.set(keys.serving(0), "another process")
    with pytest.raises(LeaseLost):
        await calls.save(partition, [following, CallSave("c", [change("4")], None, 30)])
    assert await inbox.redis.exists(keys.calls(0, "c")) == 0


async def test_names_of_calls_may_have_any_characters(inbox: Inbox) -> None:
    calls, partition = Calls(inbox), await leased(inbox)
    named = change('quote " backslash \\ newline \n tab \t Müller \u0001 \u2028 \U0001f4de', live=1)
    await calls.save(partition, [CallSave("", [named], None, 30)])
    assert await calls.get(named.kept.name) == named.kept
    assert await calls.live() == 1
    [listed] = [each async for each in calls.since(named.events[0].received)]
    assert listed == named.kept


async def test_an_event_behind_many_that_are_not_folded_is_not_caught_up_with(
    inbox: Inbox,
) -> None:
    others = [event(f"{n}", type=EventType.PHONE_UNREGISTERED) for n in range(1_001)]
    await inbox.append(batch_of(*others), 0)
    assert await caught_up(inbox, datetime.now(UTC) + timedelta(seconds=60))
    await inbox.append(batch_of(event("call")), 0)
    assert not await caught_up(inbox, datetime.now(UTC) + timedelta(seconds=60))
