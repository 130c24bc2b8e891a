"""The inbox on a real server: what its scripts promise."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from offhook.connection import connect
from offhook.errors import InboxUnavailable, LeaseLost
from offhook.event import CallEvent
from offhook.inbox import Cursor, Inbox, ParkedLanes, keys, partition_of, quarantine
from tests.events import batch_of, event

HANDLERS = ["crm", "log"]
STREAM, AWAKE = keys.inbox(0), keys.awake(0, "crm")


@pytest.fixture
async def inbox(redis_url: str) -> AsyncIterator[Inbox]:
    async with connect(redis_url) as client:
        made = Inbox(client, 1)
        for handler in HANDLERS:
            await made.ensure_cursor(handler, "now")
        yield made


async def append(
    inbox: Inbox, *events: CallEvent, marks: list[str] | None = None, window: float = 60
) -> tuple[set[int], list[str]]:
    return await inbox.append(batch_of(*events, marks=marks), HANDLERS, window)


async def leased(inbox: Inbox, handler: str = "crm") -> Cursor:
    cursor = Cursor(inbox, handler, 0)
    assert await cursor.take() == 0
    return cursor


async def test_every_handler_reads_events_in_order(inbox: Inbox) -> None:
    sent = [event(n=n) for n in range(5)]
    await append(inbox, *sent)
    for handler in HANDLERS:
        read = await (await leased(inbox, handler)).read(10, 10)
        assert [entry.event for entry in read] == sent


async def test_a_repeat_within_the_window_is_left_out_and_reported(inbox: Inbox) -> None:
    first, second = event(n=1), event(n=2)
    assert (await append(inbox, first, marks=["same"]))[0] == set()
    assert (await append(inbox, second, first, marks=["new", "same"]))[0] == {1}
    read = await (await leased(inbox)).read(10, 10)
    assert [entry.event for entry in read] == [first, second]


async def test_a_repeat_after_the_window_is_a_new_event(inbox: Inbox) -> None:
    await append(inbox, event(), marks=["same"], window=0.01)
    await asyncio.sleep(0.05)
    assert (await append(inbox, event(), marks=["same"], window=0.01))[0] == set()


async def test_a_failed_append_does_not_make_the_next_one_a_repeat(inbox: Inbox) -> None:
    one = event()
    await inbox.redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(InboxUnavailable, match="memory"):
            await append(inbox, one)
    finally:
        await inbox.redis.config_set("maxmemory", "0")
    assert (await append(inbox, one))[0] == set()


async def test_a_batch_that_is_sent_again_is_appended_once(inbox: Inbox) -> None:
    first, second = event(n=1), event(n=2)
    one_batch = batch_of(first)
    for _ in range(3):  # without a window no mark would tell
        await inbox.append(one_batch, HANDLERS, 0)
    await inbox.append(batch_of(second), HANDLERS, 0)
    read = await (await leased(inbox)).read(10, 10)
    assert [entry.event for entry in read] == [first, second]


async def test_scripts_survive_a_flushed_script_cache(inbox: Inbox) -> None:
    await append(inbox, event(n=1))
    await inbox.redis.script_flush()
    await append(inbox, event(n=2))
    assert len(await (await leased(inbox)).read(10, 10)) == 2


async def test_an_append_wakes_only_sleeping_handlers(inbox: Inbox) -> None:
    assert (await append(inbox, event(n=1)))[1] == HANDLERS
    assert (await append(inbox, event(n=2)))[1] == []  # both are being called
    cursor = await leased(inbox, "crm")
    await cursor.rest(even_if_behind=True)
    assert (await append(inbox, event(n=3)))[1] == ["crm"]


async def test_a_repeat_wakes_no_handler(inbox: Inbox) -> None:
    one = event()
    await append(inbox, one)
    for handler in HANDLERS:
        await (await leased(inbox, handler)).rest(even_if_behind=True)
    assert (await append(inbox, one))[1] == []


async def test_a_dispatch_may_rest_only_with_nothing_left_to_read(inbox: Inbox) -> None:
    cursor = await leased(inbox)
    await append(inbox, event())
    assert not await cursor.rest()
    assert await cursor.read(10, 10)
    assert await cursor.rest()
    assert await inbox.redis.exists(AWAKE) == 0


async def test_one_process_holds_the_lease_until_it_expires(inbox: Inbox) -> None:
    await leased(inbox)
    second = Cursor(inbox, "crm", 0)
    assert 0 < await second.take() <= 6
    await inbox.redis.pexpire(AWAKE, 20)
    await asyncio.sleep(0.05)
    assert await second.take() == 0


async def test_a_process_that_lost_its_lease_changes_nothing(inbox: Inbox) -> None:
    stale = await leased(inbox)
    await append(inbox, event())
    [entry] = await stale.read(10, 10)
    await inbox.redis.delete(AWAKE)
    await leased(inbox)
    assert not await stale.renew()
    with pytest.raises(LeaseLost):
        await stale.acknowledge([entry.position], 1)
    with pytest.raises(LeaseLost):
        await stale.park(entry, 1)
    assert await stale.rest()  # it has nothing left to give back
    assert (await inbox.state("crm", 0)).in_flight == 1


async def test_a_parked_lane_gives_its_events_back_in_order(inbox: Inbox) -> None:
    cursor, lanes = await leased(inbox), ParkedLanes(inbox, "crm")
    sent = [event(n=n) for n in range(3)]
    await append(inbox, *sent)
    first, second, third = await cursor.read(10, 10)
    assert not await cursor.park_behind(second)  # the lane is not parked yet
    assert await cursor.park(first, 1)
    assert await cursor.park_behind(second)
    assert not await cursor.park(third, 1)  # the lane waits for the first
    assert (await inbox.state("crm", 0)).in_flight == 0
    assert await lanes.parked(0) == {sent[0].call: sent[0].id}
    assert await lanes.advance(sent[0], "delivered") == sent[1]
    with pytest.raises(LeaseLost):
        await lanes.advance(sent[0], "delivered")
    assert await lanes.advance(sent[1], "dead") == sent[2]
    assert await lanes.advance(sent[2], "delivered") is None
    assert await lanes.parked(0) == {}
    state = await inbox.state("crm", 0)
    assert (state.delivered, state.dead) == (2, 1)


async def test_a_server_without_memory_accepts_acknowledgements(inbox: Inbox) -> None:
    cursor = await leased(inbox)
    sent = [event("a", 0), event("b", 0), event("b", 1)]
    await append(inbox, *sent)
    alone, first, second = await cursor.read(10, 10)
    assert await cursor.park(first, 1)
    assert await cursor.park_behind(second)
    await inbox.redis.config_set("maxmemory", 1)
    try:
        await cursor.acknowledge([alone.position], 1)
        assert await ParkedLanes(inbox, "crm").advance(sent[1], "delivered") == sent[2]
    finally:
        await inbox.redis.config_set("maxmemory", 0)
    state = await inbox.state("crm", 0)
    assert (state.in_flight, state.lanes, state.delivered) == (0, 1, 2)


async def test_attempts_are_counted_for_the_event_that_a_lane_waits_for(inbox: Inbox) -> None:
    cursor, lanes = await leased(inbox), ParkedLanes(inbox, "crm")
    await append(inbox, event(n=0), event(n=1))
    first, second = await cursor.read(10, 10)
    await cursor.park(first, 1)
    await cursor.park_behind(second)
    assert await lanes.begin_attempt(first.event) == 2
    assert await lanes.begin_attempt(first.event) == 3
    assert await lanes.begin_attempt(second.event) == 0
    await lanes.advance(first.event, "delivered")
    assert await lanes.begin_attempt(first.event) == 0
    assert await lanes.begin_attempt(second.event) == 1


async def test_parking_an_event_twice_does_not_duplicate_it(inbox: Inbox) -> None:
    cursor = await leased(inbox)
    await append(inbox, event())
    [entry] = await cursor.read(10, 10)
    assert await cursor.park(entry, 1)
    assert await cursor.park(entry, 1)
    assert await ParkedLanes(inbox, "crm").advance(entry.event, "delivered") is None


async def test_a_cursor_is_behind_if_events_wait_and_no_dispatch_serves_it(inbox: Inbox) -> None:
    assert not await inbox.behind("crm", 0)
    cursor = await leased(inbox)
    await append(inbox, event())
    assert not await inbox.behind("crm", 0)  # it is served
    await cursor.read(10, 10)
    await cursor.rest(even_if_behind=True)
    assert await inbox.behind("crm", 0)  # read, but not delivered
    assert not await inbox.behind("crm", 0)  # being called


async def test_trimming_keeps_undelivered_events(inbox: Inbox) -> None:
    for n in range(300):
        await inbox.redis.xadd(STREAM, {"e": b"old"}, id=f"{n + 1}-0")
    later = datetime.now(UTC) + timedelta(days=1)
    assert await inbox.trim(0, later, HANDLERS) == 0  # neither handler has read any
    for handler in HANDLERS:
        await inbox.redis.xgroup_setid(STREAM, handler, "250-0")
    assert 0 < await inbox.trim(0, later, HANDLERS) <= 250
    assert await inbox.redis.xlen(STREAM) >= 50


async def test_cutting_a_full_inbox_counts_what_each_handler_loses(inbox: Inbox) -> None:
    cursor = await leased(inbox)  # of crm
    await append(inbox, *(event(n=n) for n in range(3000)))
    read = await cursor.read(100, 10)
    await cursor.acknowledge([entry.position for entry in read[:50]], 50)
    assert await inbox.cut(0, 500, HANDLERS) == {"crm": 2450, "log": 2500}
    assert (await inbox.state("crm", 0)).in_flight == 0  # no dispatch searches for them
    await cursor.locate()
    left = await cursor.read(1000, 10)
    assert [int(entry.event.parameters["n"]) for entry in left] == list(range(2500, 3000))
    assert await inbox.cut(0, 500, HANDLERS) == {}


async def test_a_handler_that_is_no_longer_configured_holds_nothing_back(inbox: Inbox) -> None:
    await append(inbox, *(event(n=n) for n in range(300)))
    await inbox.ensure_cursor("removed", "earliest")
    later = datetime.now(UTC) + timedelta(days=1)
    for handler in HANDLERS:
        await inbox.redis.xgroup_setid(STREAM, handler, "$")
    assert await inbox.trim(0, later, HANDLERS) > 0
    assert await inbox.cursors() == {*HANDLERS, "removed"}
    await inbox.forget("removed")
    assert await inbox.cursors() == set(HANDLERS)


async def test_the_lag_after_a_replay_is_counted_page_by_page(inbox: Inbox) -> None:
    cursor = await leased(inbox)
    await append(inbox, *(event(n=n) for n in range(3500)))
    read = await cursor.read(3500, 10)
    await cursor.acknowledge([entry.position for entry in read], 3500)
    await inbox.redis.xgroup_setid(STREAM, "crm", read[99].position)
    await inbox.redis.config_resetstat()
    assert (await inbox.state("crm", 0)).lag == 3400
    stats: Any = await inbox.redis.info("commandstats")
    assert stats["cmdstat_xrange"]["calls"] == 5  # one that reads all would block the server


async def test_a_cursor_set_back_gets_the_events_again(inbox: Inbox) -> None:
    cursor = await leased(inbox)
    before = datetime.now(UTC) - timedelta(seconds=1)
    await append(inbox, *(event(n=n) for n in range(3)))
    read = await cursor.read(10, 10)
    await cursor.acknowledge([entry.position for entry in read], 3)
    assert await cursor.read(10, 10) == []
    assert await inbox.set_back("crm", before) == 3
    await cursor.locate()
    assert [entry.event for entry in await cursor.read(10, 10)] == [e.event for e in read]
    assert (await inbox.state("crm", 0)).lag == 0


def test_the_events_of_a_call_share_a_partition() -> None:
    assert {partition_of(event(f"call-{n}"), 4) for n in range(100)} == {0, 1, 2, 3}
    assert len({partition_of(event("call-1", n), 4) for n in range(100)}) == 1
    assert {partition_of(event("x", pbx=pbx), 4) for pbx in "abcdefgh"} != {0}


async def test_the_quarantine_keeps_the_newest(inbox: Inbox) -> None:
    for n in range(7):
        await quarantine.keep(inbox.redis, {"code": str(n)}, 5)
    kept = await quarantine.kept(inbox.redis)
    assert [fields["code"] for _, fields in kept] == [b"6", b"5", b"4", b"3", b"2"]


async def test_memory_is_checked_rarely_but_at_every_append_while_it_is_full(
    inbox: Inbox,
) -> None:
    async def checks() -> int:
        return int((await inbox.redis.info("commandstats"))["cmdstat_info"]["calls"])

    await inbox.redis.config_resetstat()
    await inbox.redis.info()  # so that INFO is in the statistics
    for n in range(100):
        await append(inbox, event(n=n))
    before = await checks()
    assert 2 <= before < 50
    await asyncio.sleep(0.06)
    await append(inbox, event())
    assert await checks() == before + 2, "once for the append, and once for this assertion"
    used = (await inbox.redis.info("memory"))["used_memory"]
    await inbox.redis.config_set("maxmemory", int(used * 1.05))
    try:
        await asyncio.sleep(0.06)
        for _ in range(3):
            with pytest.raises(InboxUnavailable, match="90 % of maxmemory"):
                await append(inbox, event())
    finally:
        await inbox.redis.config_set("maxmemory", 0)
    await append(inbox, event())
