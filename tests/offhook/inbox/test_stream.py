"""The inbox on a real server: what its scripts promise."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from offhook.connection import connect
from offhook.errors import InboxUnavailable, LeaseLost
from offhook.event import CallEvent, from_stored, to_stored
from offhook.inbox import Inbox, ParkedLanes, keys, partition_of, quarantine
from offhook.inbox.handler_states import HandlerStates
from offhook.inbox.leases import LEASE_MS, Leases
from offhook.inbox.partition import Changes, Partition
from offhook.inbox.positions import START
from offhook.inbox.replays import Replay, Replays
from offhook.inbox.trimming import Trimming
from tests.events import batch_of, event

HANDLERS = ["crm", "log"]
STREAM = keys.inbox(0)


@pytest.fixture
async def inbox(redis_url: str) -> AsyncIterator[Inbox]:
    async with connect(redis_url) as client:
        made = Inbox(client, 1)
        await made.register(dict.fromkeys(HANDLERS, "now"))
        yield made


async def append(
    inbox: Inbox, *events: CallEvent, marks: list[str] | None = None, window: float = 60
) -> set[int]:
    return await inbox.append(batch_of(*events, marks=marks), window)


async def stored(inbox: Inbox) -> list[CallEvent]:
    found = await Partition(inbox.redis, inbox.redis, 0).range("", START, b"+", 1000)
    return [from_stored(each) for _, each in found]


async def positions(inbox: Inbox) -> list[bytes]:
    found: Any = await inbox.redis.xrange(STREAM)
    return [position for position, _ in found]


async def leased(inbox: Inbox, token: str | None = None) -> Partition:
    partition = Partition(inbox.redis, inbox.redis, 0, token=token)
    assert await partition.lease.take() == 0
    return partition


async def flush(
    partition: Partition,
    read: bytes | None = None,
    records: dict[str, str] | None = None,
    *,
    finished: bool = False,
    lanes: Sequence[tuple[Any, ...]] = (),
    stored: Sequence[CallEvent] = (),
    **counts: int,
) -> list[bytes]:
    """Write positions, and counts of `crm`."""
    flat = [each for pair in (records or {}).items() for each in pair]
    streams: Any = [("", read.decode(), int(finished), [], flat, [])] if read else []
    changes = Changes(
        streams,
        list(lanes),
        [to_stored(each) for each in stored],
        {("crm", outcome): number for outcome, number in counts.items()},
    )
    return await partition.numbered(changes)()


def park(one: CallEvent, *, count: int = 1, attempts: int = 1, due: float = 0) -> tuple[Any, ...]:
    return ("park", "crm", one.call, one.id, attempts, str(int(due * 1000)), count)


async def test_events_are_read_in_order(inbox: Inbox) -> None:
    sent = [event(n=n) for n in range(5)]
    await append(inbox, *sent)
    assert await stored(inbox) == sent


async def test_a_repeat_within_the_window_is_left_out_and_reported(inbox: Inbox) -> None:
    first, second = event(n=1), event(n=2)
    assert await append(inbox, first, marks=["same"]) == set()
    assert await append(inbox, second, first, marks=["new", "same"]) == {1}
    assert await stored(inbox) == [first, second]


async def test_a_repeat_after_the_window_is_a_new_event(inbox: Inbox) -> None:
    await append(inbox, event(), marks=["same"], window=0.01)
    await asyncio.sleep(0.05)
    assert await append(inbox, event(), marks=["same"], window=0.01) == set()


async def test_a_failed_append_does_not_make_the_next_one_a_repeat(inbox: Inbox) -> None:
    one = event()
    await inbox.redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(InboxUnavailable, match="memory"):
            await append(inbox, one)
    finally:
        await inbox.redis.config_set("maxmemory", "0")
    assert await append(inbox, one) == set()


async def test_a_batch_that_is_sent_again_is_appended_once(inbox: Inbox) -> None:
    first, second = event(n=1), event(n=2)
    one_batch = batch_of(first)
    for _ in range(3):  # without a window no mark would tell
        await inbox.append(one_batch, 0)
    await inbox.append(batch_of(second), 0)
    assert await stored(inbox) == [first, second]


async def test_scripts_survive_a_flushed_script_cache(inbox: Inbox) -> None:
    await append(inbox, event(n=1))
    await inbox.redis.script_flush()
    await append(inbox, event(n=2))
    assert len(await stored(inbox)) == 2


async def test_an_append_wakes_the_server_of_its_partition(inbox: Inbox) -> None:
    partition = await leased(inbox)
    await partition.marks(0.01)  # of the registration
    assert await partition.marks(0.01) == []
    await append(inbox, event(n=1))
    await append(inbox, event(n=2))
    assert await partition.marks(0.01) == [""]
    assert await partition.marks(0.01) == []
    assert await partition.unfinished() == [""]


async def test_a_repeat_wakes_no_server(inbox: Inbox) -> None:
    one = event()
    await append(inbox, one)
    partition = await leased(inbox)
    await partition.marks(0.01)
    await append(inbox, one)
    assert await partition.marks(0.01) == []


async def test_a_stream_stays_unfinished_while_it_has_events_that_were_not_read(
    inbox: Inbox,
) -> None:
    partition = await leased(inbox)
    await append(inbox, event(n=1), event(n=2))
    first, second = await positions(inbox)
    await flush(partition, first, finished=True)  # its writer has not seen the second
    assert await partition.unfinished() == [""]
    await flush(partition, second, finished=False)
    assert await partition.unfinished() == [""]
    await flush(partition, second, finished=True)
    assert await partition.unfinished() == []


async def test_one_process_holds_the_lease_until_it_expires(inbox: Inbox) -> None:
    await leased(inbox)
    second = Partition(inbox.redis, inbox.redis, 0)
    assert 0 < await second.lease.take() <= LEASE_MS / 1000
    await inbox.redis.pexpire(keys.serving(0), 20)
    await asyncio.sleep(0.05)
    assert await second.lease.take() == 0


async def test_a_server_knows_when_another_one_that_is_silent_counts_as_dead(
    inbox: Inbox,
) -> None:
    leases = Leases(inbox.redis, 4, "", 1)
    silent_since, now = time.time() - LEASE_MS / 1000 + 5, time.monotonic()
    await inbox.redis.zadd(keys.servers(), {"elsewhere/1/silent": silent_since})
    assert await leases.share() == 2
    assert now + 4 < leases.next_death < now + 9
    await inbox.redis.zadd(keys.servers(), {"elsewhere/1/silent": silent_since - 5})  # 5 s later
    assert await leases.share() == 4
    assert leases.next_death - time.monotonic() > 0.9 * LEASE_MS / 1000


async def test_pools_have_leases_of_their_own(inbox: Inbox) -> None:
    await leased(inbox)
    assert await Partition(inbox.redis, inbox.redis, 0, "slow").lease.take() == 0


async def test_a_process_that_lost_its_lease_changes_nothing(inbox: Inbox) -> None:
    stale = await leased(inbox)
    one = event()
    await append(inbox, one)
    [position] = await positions(inbox)
    await flush(stale, position, {"crm": f"- {position.decode()}"})
    await flush(stale, lanes=[park(event("b"))], stored=[event("b")])
    await inbox.redis.delete(keys.serving(0))
    await leased(inbox)
    before = await inbox.redis.dump(keys.due(0)), await HandlerStates(inbox).state("crm", 0)
    with pytest.raises(LeaseLost):
        await flush(stale, position, {"crm": ""}, delivered=1)
    with pytest.raises(LeaseLost):
        await flush(stale, lanes=[park(one)], stored=[one])
    with pytest.raises(LeaseLost):
        await stale.due_times.begin(time.time(), 10)
    await stale.lease.release()  # it has nothing left to give back
    after = await inbox.redis.dump(keys.due(0)), await HandlerStates(inbox).state("crm", 0)
    assert after == before
    assert await inbox.redis.exists(keys.serving(0))


async def test_a_flush_that_is_sent_again_is_made_once(inbox: Inbox) -> None:
    partition = await leased(inbox)
    first, second = event(n=1), event(n=2)
    await flush(partition, lanes=[park(first, count=2)], stored=[first, second])
    changes = Changes(lanes=[("advance", "crm", first.call)], counts={("crm", "delivered"): 1})
    send = partition.numbered(changes)
    answers = [await send() for _ in range(3)]
    assert [[from_stored(each) for each in answer] for answer in answers] == [[second]] * 3
    assert (await HandlerStates(inbox).state("crm", 0)).delivered == 1


async def test_a_parked_lane_gives_its_events_back_in_order(inbox: Inbox) -> None:
    partition, lanes = await leased(inbox), ParkedLanes(inbox, "crm")
    sent = [event(n=n) for n in range(3)]
    call = sent[0].call
    await flush(partition, lanes=[park(sent[0], count=2)], stored=sent[:2])
    await flush(partition, lanes=[("behind", "crm", call, 1)], stored=sent[2:])
    assert await lanes.events(0, call) == sent
    assert await partition.due_times.parked() == [("crm", call)]
    assert await HandlerStates(inbox).parked() == {"crm": 1}
    await partition.due_times.begin(time.time(), 10)
    for following in sent[1:]:
        [answer] = await flush(partition, lanes=[("advance", "crm", call)])
        assert from_stored(answer) == following
    assert await flush(partition, lanes=[("advance", "crm", call)]) == [b""]
    assert await partition.due_times.parked() == []
    assert await partition.due_times.begun() == []


async def test_a_server_without_memory_accepts_acknowledgements(inbox: Inbox) -> None:
    partition = await leased(inbox)
    alone, *parked = [event("a", 0), event("b", 0), event("b", 1)]
    await append(inbox, alone)
    [position] = await positions(inbox)
    await flush(partition, position, {"crm": f"- {position.decode()}"})
    await flush(partition, lanes=[park(parked[0], count=2)], stored=parked)
    await inbox.redis.config_set("maxmemory", 1)
    try:
        await flush(partition, position, {"crm": ""}, delivered=1)
        [answer] = await flush(partition, lanes=[("advance", "crm", parked[0].call)], delivered=1)
    finally:
        await inbox.redis.config_set("maxmemory", 0)
    assert from_stored(answer) == parked[1]
    state = await HandlerStates(inbox).state("crm", 0)
    assert (state.in_flight, state.delivered) == (0, 2)


async def test_a_redelivery_begins_when_it_is_due_and_again_if_it_is_lost(inbox: Inbox) -> None:
    partition = await leased(inbox)
    one = event()
    now = time.time()
    await flush(partition, lanes=[park(one, attempts=2, due=now + 60)], stored=[one])
    following, none = await partition.due_times.begin(now, 10)
    assert none == []
    assert following == pytest.approx(now + 60, abs=0.01)
    following, [begun] = await partition.due_times.begin(now + 61, 10)
    assert (following, begun.attempt, from_stored(begun.stored)) == (None, 3, one)
    assert await partition.due_times.begin(now + 61, 10) == (None, [])
    assert await partition.due_times.begun() == [("crm", one.call)]
    # Its process died.
    await flush(partition, lanes=[("lost", "crm", one.call, str(int(now * 1000)))])
    _, [begun] = await partition.due_times.begin(now, 10)
    assert begun.attempt == 3


async def test_trimming_keeps_undelivered_events(inbox: Inbox) -> None:
    for n in range(300):
        await inbox.redis.xadd(STREAM, {"e": b"old", "n": n + 1}, id=f"{n + 1}-0")
    later = datetime.now(UTC) + timedelta(days=1)
    assert await Trimming(inbox).trim(0, later, HANDLERS) == 0  # neither handler has read any
    await inbox.redis.delete(keys.behind(0))
    await flush(await leased(inbox), b"290-0", {"log": "- 250-0 260-0"})
    assert await Trimming(inbox).trim(0, later, HANDLERS) == 0  # none is folded
    await inbox.redis.hset(keys.folded(0), "", b"290-0")
    assert 0 < await Trimming(inbox).trim(0, later, HANDLERS) < 250
    assert await inbox.redis.xrange(STREAM, "250-0", "250-0")


async def test_cutting_a_full_inbox_counts_what_each_handler_loses(inbox: Inbox) -> None:
    await append(inbox, *(event(n=n) for n in range(3000)))
    at = [position.decode() for position in await positions(inbox)]
    records = {"crm": " ".join((at[99], *at[50:100])), "log": ""}
    await flush(await leased(inbox), START, records)
    assert await Trimming(inbox).cut(0, 500, HANDLERS) == {"crm": 2450, "log": 2500}
    left = [int(each.parameters["n"]) for each in await stored(inbox)]
    assert left == list(range(2500, 3000))
    assert await Trimming(inbox).cut(0, 500, HANDLERS) == {}


async def test_a_handler_that_is_no_longer_configured_holds_nothing_back(inbox: Inbox) -> None:
    await append(inbox, *(event(n=n) for n in range(300)))
    await inbox.register({"removed": "earliest"})
    last = (await positions(inbox))[-1]
    await flush(await leased(inbox), last, dict.fromkeys(HANDLERS, ""))
    await inbox.redis.hset(keys.folded(0), "", last)
    later = datetime.now(UTC) + timedelta(days=1)
    assert await Trimming(inbox).trim(0, later, HANDLERS) > 0
    assert await inbox.known() == {*HANDLERS, "removed"}
    await inbox.forget("removed")
    assert await inbox.known() == set(HANDLERS)


async def test_the_lag_is_counted_without_reading_the_events(inbox: Inbox) -> None:
    await append(inbox, *(event(n=n) for n in range(3500)))
    at = await positions(inbox)
    await flush(await leased(inbox), at[-1], {"crm": at[99].decode(), "log": ""})
    await inbox.redis.config_resetstat()
    states = await HandlerStates(inbox).states(HANDLERS, 0)
    assert {name: state.lag for name, state in states.items()} == {"crm": 3400, "log": 0}
    stats: Any = await inbox.redis.info("commandstats")
    assert stats["cmdstat_xrange"]["calls"] == 2
    assert (states["crm"].since, states["log"].since) == (int(at[100].split(b"-")[0]), 0)


async def test_a_handler_set_back_is_set_back_by_its_server(inbox: Inbox) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    await append(inbox, *(event(n=n) for n in range(3)))
    partition = await leased(inbox)
    last = (await positions(inbox))[-1]
    await flush(partition, last, dict.fromkeys(HANDLERS, ""), finished=True)
    await partition.marks(0.01)
    found = await Replays(inbox).find("crm", before)
    first = datetime.fromtimestamp(int(last.split(b"-")[0]) / 1000, UTC)
    assert found == Replay({0: 3}, first)
    assert await Replays(inbox).set_back("crm", before, found=found) == 3
    assert await partition.marks(0.01) == ["*"]
    assert await partition.unfinished() == [""]
    [state] = await partition.load([""])
    [(handler, position)] = state.replays.items()
    assert handler == "crm"
    assert len(await partition.range("", position, b"+", 10)) == 3
    await partition.replayed("", "crm", b"0-0")  # an earlier one
    assert await partition.replays([""]) == {"": {"crm": position}}
    await partition.replayed("", "crm", position)
    [state] = await partition.load([""])
    assert state.replays == {}


async def test_a_replay_waits_until_its_server_has_done_it(inbox: Inbox) -> None:
    now = datetime.now(UTC)
    await append(inbox, *(event(n=n) for n in range(3)))
    partition = await leased(inbox)
    last = (await positions(inbox))[-1]
    await flush(partition, last, dict.fromkeys(HANDLERS, ""), finished=True)
    for hours in (2, 3, 1):
        assert await Replays(inbox).set_back("crm", now - timedelta(hours=hours)) == 3
    await flush(partition, last, {}, finished=True)
    assert await partition.unfinished() == [""]
    [state] = await partition.load([""])
    earliest = int((now - timedelta(hours=3)).timestamp() * 1000) - 1
    assert state.replays["crm"].startswith(f"{earliest}-".encode())


def test_the_events_of_a_call_share_a_partition() -> None:
    assert {partition_of(event(f"call-{n}"), 4) for n in range(100)} == {0, 1, 2, 3}
    assert len({partition_of(event("call-1", n), 4) for n in range(100)}) == 1
    assert {partition_of(event("x", pbx=pbx), 4) for pbx in "abcdefgh"} != {0}


async def test_the_quarantine_keeps_the_newest(inbox: Inbox) -> None:
    await quarantine.keep(inbox.redis, [{"code": str(n)} for n in range(6)], 5)
    await quarantine.keep(inbox.redis, [{"code": "6"}], 5)
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
