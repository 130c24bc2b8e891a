"""The inbox on a real server: what its scripts promise."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from offhook.connection import connect
from offhook.errors import InboxUnavailable, LeaseLost
from offhook.event import CallEvent
from offhook.inbox import Cursor, Inbox, partition_of
from tests.events import batch_of, event

HANDLERS = ["crm", "log"]


def run(url: str, test: Callable[[Inbox], Awaitable[None]], partitions: int = 1) -> None:
    async def with_inbox() -> None:
        async with connect(url) as client:
            inbox = Inbox(client, partitions)
            for handler in HANDLERS:
                await inbox.ensure_cursor(handler, "now")
            await test(inbox)

    asyncio.run(with_inbox())


async def append(
    inbox: Inbox, *events: CallEvent, marks: list[str] | None = None, window: float = 60
) -> tuple[set[int], list[str]]:
    return await inbox.append(batch_of(*events, marks=marks), HANDLERS, window)


async def leased(inbox: Inbox, handler: str = "crm") -> Cursor:
    cursor = Cursor(inbox, handler, 0)
    assert await cursor.take() == 0
    return cursor


def test_what_is_appended_is_read_in_order_by_every_handler(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        sent = [event(n=n) for n in range(5)]
        await append(inbox, *sent)
        for handler in HANDLERS:
            read = await (await leased(inbox, handler)).read(10, 10)
            assert [entry.event for entry in read] == sent

    run(redis_url, test)


def test_a_repeat_within_the_window_is_left_out_and_told(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        first, second = event(n=1), event(n=2)
        assert (await append(inbox, first, marks=["same"]))[0] == set()
        assert (await append(inbox, second, first, marks=["new", "same"]))[0] == {1}
        read = await (await leased(inbox)).read(10, 10)
        assert [entry.event for entry in read] == [first, second]

    run(redis_url, test)


def test_after_the_window_the_same_is_a_new_event(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        await append(inbox, event(), marks=["same"], window=0.01)
        await asyncio.sleep(0.05)
        assert (await append(inbox, event(), marks=["same"], window=0.01))[0] == set()

    run(redis_url, test)


def test_a_failed_append_is_not_taken_for_a_repeat_later(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        one = event()
        await inbox.redis.config_set("maxmemory", "1")
        try:
            with pytest.raises(InboxUnavailable, match="memory"):
                await append(inbox, one)
        finally:
            await inbox.redis.config_set("maxmemory", "0")
        assert (await append(inbox, one))[0] == set()

    run(redis_url, test)


def test_a_batch_that_is_sent_again_is_appended_once(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        first, second = event(n=1), event(n=2)
        one_batch = batch_of(first)
        for _ in range(3):  # without marks that would tell
            await inbox.append(one_batch, HANDLERS, 0)
        await inbox.append(batch_of(second), HANDLERS, 0)
        read = await (await leased(inbox)).read(10, 10)
        assert [entry.event for entry in read] == [first, second]

    run(redis_url, test)


def test_the_scripts_survive_a_flushed_script_cache(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        await append(inbox, event(n=1))
        await inbox.redis.script_flush()
        await append(inbox, event(n=2))
        assert len(await (await leased(inbox)).read(10, 10)) == 2

    run(redis_url, test)


def test_only_who_sleeps_is_called(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        assert (await append(inbox, event(n=1)))[1] == HANDLERS
        assert (await append(inbox, event(n=2)))[1] == []  # both are being called
        cursor = await leased(inbox, "crm")
        await cursor.rest(even_if_behind=True)
        assert (await append(inbox, event(n=3)))[1] == ["crm"]

    run(redis_url, test)


def test_a_repeat_calls_nobody(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        one = event()
        await append(inbox, one)
        for handler in HANDLERS:
            await (await leased(inbox, handler)).rest(even_if_behind=True)
        assert (await append(inbox, one))[1] == []

    run(redis_url, test)


def test_a_dispatch_may_rest_only_with_nothing_left_to_read(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        cursor = await leased(inbox)
        await append(inbox, event())
        assert not await cursor.rest()
        assert await cursor.read(10, 10)
        assert await cursor.rest()
        assert await inbox.redis.exists("offhook:{0}:awake:crm") == 0

    run(redis_url, test)


def test_one_lease_at_a_time_and_a_dead_holder_loses_it(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        await leased(inbox)
        second = Cursor(inbox, "crm", 0)
        assert 0 < await second.take() <= 6
        await inbox.redis.pexpire("offhook:{0}:awake:crm", 20)
        await asyncio.sleep(0.05)
        assert await second.take() == 0

    run(redis_url, test)


def test_who_lost_the_lease_changes_nothing_any_more(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        stale = await leased(inbox)
        await append(inbox, event())
        [entry] = await stale.read(10, 10)
        await inbox.redis.delete("offhook:{0}:awake:crm")
        await leased(inbox)
        assert not await stale.renew()
        with pytest.raises(LeaseLost):
            await stale.acknowledge([entry.position], 1)
        with pytest.raises(LeaseLost):
            await stale.park(entry, 1)
        assert await stale.rest()  # nothing of its own is left to give back
        assert (await inbox.state("crm", 0)).in_flight == 1

    run(redis_url, test)


def test_a_parked_lane_gives_its_events_back_in_order(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        cursor = await leased(inbox)
        sent = [event(n=n) for n in range(3)]
        await append(inbox, *sent)
        first, second, third = await cursor.read(10, 10)
        assert not await cursor.park_behind(second)  # the lane does not wait yet
        assert await cursor.park(first, 1)
        assert await cursor.park_behind(second)
        assert not await cursor.park(third, 1)  # the lane waits for the first
        assert (await inbox.state("crm", 0)).in_flight == 0
        assert await inbox.parked("crm", 0) == {sent[0].call: sent[0].id}
        assert await inbox.advance("crm", sent[0], "delivered") == sent[1]
        with pytest.raises(LeaseLost):
            await inbox.advance("crm", sent[0], "delivered")
        assert await inbox.advance("crm", sent[1], "dead") == sent[2]
        assert await inbox.advance("crm", sent[2], "delivered") is None
        assert await inbox.parked("crm", 0) == {}
        state = await inbox.state("crm", 0)
        assert (state.delivered, state.dead) == (2, 1)

    run(redis_url, test)


def test_a_server_without_memory_takes_what_is_done_with(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        cursor = await leased(inbox)
        sent = [event("a", 0), event("b", 0), event("b", 1)]
        await append(inbox, *sent)
        alone, first, second = await cursor.read(10, 10)
        assert await cursor.park(first, 1)
        assert await cursor.park_behind(second)
        await inbox.redis.config_set("maxmemory", 1)
        try:
            await cursor.acknowledge([alone.position], 1)
            assert await inbox.advance("crm", sent[1], "delivered") == sent[2]
        finally:
            await inbox.redis.config_set("maxmemory", 0)
        state = await inbox.state("crm", 0)
        assert (state.in_flight, state.lanes, state.delivered) == (0, 1, 2)

    run(redis_url, test)


def test_attempts_are_counted_for_the_event_that_a_lane_waits_for(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        cursor = await leased(inbox)
        await append(inbox, event(n=0), event(n=1))
        first, second = await cursor.read(10, 10)
        await cursor.park(first, 1)
        await cursor.park_behind(second)
        assert await inbox.begin_attempt("crm", first.event) == 2
        assert await inbox.begin_attempt("crm", first.event) == 3
        assert await inbox.begin_attempt("crm", second.event) == 0
        await inbox.advance("crm", first.event, "delivered")
        assert await inbox.begin_attempt("crm", first.event) == 0
        assert await inbox.begin_attempt("crm", second.event) == 1

    run(redis_url, test)


def test_parking_the_same_event_again_does_not_double_it(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        cursor = await leased(inbox)
        await append(inbox, event())
        [entry] = await cursor.read(10, 10)
        assert await cursor.park(entry, 1)
        assert await cursor.park(entry, 1)
        assert await inbox.advance("crm", entry.event, "delivered") is None

    run(redis_url, test)


def test_a_cursor_is_behind_when_nobody_serves_it_and_events_wait(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        assert not await inbox.behind("crm", 0)
        cursor = await leased(inbox)
        await append(inbox, event())
        assert not await inbox.behind("crm", 0)  # it is served
        await cursor.read(10, 10)
        await cursor.rest(even_if_behind=True)
        assert await inbox.behind("crm", 0)  # read, but not delivered
        assert not await inbox.behind("crm", 0)  # being called

    run(redis_url, test)


def test_trimming_never_passes_what_a_handler_has_not_got(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        for n in range(300):
            await inbox.redis.xadd("offhook:{0}:inbox", {"e": b"old"}, id=f"{n + 1}-0")
        later = datetime.now(UTC) + timedelta(days=1)
        assert await inbox.trim(0, later, HANDLERS) == 0  # neither handler has read any
        for handler in HANDLERS:
            await inbox.redis.xgroup_setid("offhook:{0}:inbox", handler, "250-0")
        assert 0 < await inbox.trim(0, later, HANDLERS) <= 250
        assert await inbox.redis.xlen("offhook:{0}:inbox") >= 50

    run(redis_url, test)


def test_a_full_inbox_forgets_the_oldest_and_counts_who_will_miss_them(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        cursor = await leased(inbox)  # of crm
        await append(inbox, *(event(n=n) for n in range(3000)))
        read = await cursor.read(100, 10)
        await cursor.acknowledge([entry.position for entry in read[:50]], 50)
        lost = await inbox.cut(0, 500, HANDLERS)
        [other] = set(HANDLERS) - {"crm"}
        assert lost == {"crm": 2450, other: 2500}
        assert (await inbox.state("crm", 0)).in_flight == 0  # nobody looks for them any more
        await cursor.locate()
        left = await cursor.read(1000, 10)
        assert [entry.event.parameters["n"] for entry in left] == [
            str(n) for n in range(2500, 3000)
        ]
        assert await inbox.cut(0, 500, HANDLERS) == {}

    run(redis_url, test)


def test_a_handler_that_is_configured_no_more_holds_nothing_back(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        await leased(inbox)
        await append(inbox, *(event(n=n) for n in range(300)))
        await inbox.ensure_cursor("removed", "earliest")
        later = datetime.now(UTC) + timedelta(days=1)
        for handler in HANDLERS:
            await inbox.redis.xgroup_setid("offhook:{0}:inbox", handler, "$")
        assert await inbox.trim(0, later, HANDLERS) > 0
        assert await inbox.cursors() == {*HANDLERS, "removed"}
        await inbox.forget("removed")
        assert await inbox.cursors() == set(HANDLERS)

    run(redis_url, test)


def test_what_a_replay_has_yet_to_deliver_is_counted_in_small_steps(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        cursor = await leased(inbox)
        await append(inbox, *(event(n=n) for n in range(3500)))
        read = await cursor.read(3500, 10)
        await cursor.acknowledge([entry.position for entry in read], 3500)
        await inbox.redis.xgroup_setid("offhook:{0}:inbox", "crm", read[99].position)
        await inbox.redis.config_resetstat()
        assert (await inbox.state("crm", 0)).lag == 3400
        stats: Any = await inbox.redis.info("commandstats")
        assert stats["cmdstat_xrange"]["calls"] == 5  # one that reads all holds everybody up

    run(redis_url, test)


def test_a_cursor_set_back_gets_the_events_again(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
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

    run(redis_url, test)


def test_the_events_of_a_call_share_a_partition() -> None:
    assert {partition_of(event(f"call-{n}"), 4) for n in range(100)} == {0, 1, 2, 3}
    assert len({partition_of(event("call-1", n), 4) for n in range(100)}) == 1
    assert {partition_of(event("x", pbx=pbx), 4) for pbx in "abcdefgh"} != {0}


def test_the_quarantine_is_bounded(redis_url: str) -> None:
    async def test(inbox: Inbox) -> None:
        for n in range(7):
            await inbox.quarantine({"code": str(n)}, 5)
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            kept = [fields["code"] for _, fields in client.xrange("offhook:quarantine")]
        assert kept == ["2", "3", "4", "5", "6"]

    run(redis_url, test)


def test_the_server_s_memory_is_looked_at_now_and_then(redis_url: str) -> None:
    """A look costs as much as two appends; but none is put off while there is no room."""

    async def test(inbox: Inbox) -> None:
        async def asked() -> int:
            return int((await inbox.redis.info("commandstats"))["cmdstat_info"]["calls"])

        await inbox.redis.config_resetstat()
        await inbox.redis.info()  # so that it is in the statistics
        for n in range(100):
            await append(inbox, event(n=n))
        before = await asked()
        assert 2 <= before < 50
        await asyncio.sleep(0.06)
        await append(inbox, event())
        assert await asked() == before + 2, "once by the append, and once to know it"
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

    run(redis_url, test)
