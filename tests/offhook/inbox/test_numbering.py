"""The number of partitions changes while events arrive: each call stays in one partition."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
import redis as blocking
from redis.exceptions import ConnectionError as RedisConnectionError

from offhook import CallEvent, Context
from offhook.connection import connect
from offhook.errors import InboxUnavailable
from offhook.event import from_stored
from offhook.inbox import Batch, Inbox, ParkedLanes, keys, partition_of
from offhook.inbox.appender import Appender
from offhook.inbox.call_store import Calls
from offhook.inbox.numbering import LAYOUT
from tests.events import batch_of, event
from tests.workers.serving.bench import Bench, until

pytestmark = pytest.mark.anyio


class Inboxes:
    """The inbox as several processes see it, and what it has."""

    def __init__(self, url: str, redis: Any) -> None:
        self.blocking = blocking.Redis.from_url(url)
        self._redis = redis
        self._numbers: dict[str, int] = defaultdict(int)

    def process(self, partitions: int) -> Inbox:
        """A process with this configuration."""
        return Inbox(self._redis, partitions)

    def batches(self, inbox: Inbox, *events: CallEvent, writer: str = "w") -> list[Batch]:
        lanes: dict[int, list[CallEvent]] = defaultdict(list)
        for each in events:
            lanes[partition_of(each, inbox.numbering.configured)].append(each)
        found = []
        for lane, its_events in lanes.items():
            self._numbers[writer] += 1
            found.append(
                msgspec.structs.replace(
                    batch_of(*its_events),
                    writer=writer,
                    number=self._numbers[writer],
                    partition=lane,
                )
            )
        return found

    async def append(self, inbox: Inbox, *events: CallEvent, writer: str = "w") -> None:
        for batch in self.batches(inbox, *events, writer=writer):
            await inbox.append(batch, 0)

    def contents(self) -> dict[str, list[tuple[int, str]]]:
        """Partition and number of each event of each call, in the order of each stream."""
        found: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for partition in range(64):
            entries: Any = self.blocking.xrange(keys.inbox(partition))
            for _, fields in entries:
                one = from_stored(fields[b"e"])
                if "n" in one.parameters:  # else it is about a whole call
                    found[one.call_id].append((partition, one.parameters["n"]))
        return found

    def partitions_of(self, call: str) -> set[int]:
        return {partition for partition, _ in self.contents()[call]}

    def numbers_of(self, call: str) -> list[str]:
        return [n for _, n in self.contents()[call]]


@asynccontextmanager
async def inboxes(url: str) -> AsyncIterator[Inboxes]:
    async with connect(url) as redis:
        yield Inboxes(url, redis)


def calls(count: int, name: str = "c") -> list[str]:
    return [f"{name}{number}" for number in range(count)]


async def test_calls_that_have_begun_stay_and_new_ones_are_spread(redis_url: str) -> None:
    async with inboxes(redis_url) as all_of:
        few, many = all_of.process(4), all_of.process(16)
        await few.numbering.announce()
        await all_of.append(few, *(event(call, 0) for call in calls(60)))
        await many.numbering.announce()
        await all_of.append(many, *(event(call, 1) for call in calls(60)))
        await all_of.append(many, *(event(call, 0) for call in calls(100, "new")))
        for call in calls(60):
            assert all_of.partitions_of(call) == {partition_of(event(call), 4)}
            assert all_of.numbers_of(call) == ["0", "1"]
        used = set()
        for call in calls(100, "new"):
            assert all_of.partitions_of(call) == {partition_of(event(call), 16)}
            used |= all_of.partitions_of(call)
        assert used == set(range(16))


async def test_process_with_the_old_number_takes_the_new_one(redis_url: str) -> None:
    async with inboxes(redis_url) as all_of:
        few, many = all_of.process(4), all_of.process(16)
        await few.numbering.announce()
        await all_of.append(few, *(event(call, 0) for call in calls(40)), writer="few")
        await many.numbering.announce()
        await all_of.append(many, *(event(call, 0) for call in calls(40, "new")), writer="many")
        # Whatever process an event of a call comes to.
        every = [*calls(40), *calls(40, "new")]
        await all_of.append(few, *(event(call, 1) for call in every), writer="few")
        await all_of.append(many, *(event(call, 2) for call in every), writer="many")
        for call in every:
            assert len(all_of.partitions_of(call)) == 1
            assert all_of.numbers_of(call) == ["0", "1", "2"]


async def test_process_that_was_killed_before_it_put_the_fences_is_helped(redis_url: str) -> None:
    async with inboxes(redis_url) as all_of:
        one, other, killed = all_of.process(4), all_of.process(4), all_of.process(16)
        await one.numbering.announce()
        await other.numbering.know()
        await killed.numbering._announce(keys=[keys.PARTITIONS], args=[16, LAYOUT])
        await one.numbering.load()  # as one that reads and appends does
        await all_of.append(one, *(event(call, 0) for call in calls(40)), writer="one")
        await all_of.append(other, *(event(call, 1) for call in calls(40)), writer="other")
        for call in calls(40):
            assert all_of.partitions_of(call) == {partition_of(event(call), 16)}
            assert all_of.numbers_of(call) == ["0", "1"]


async def test_folded_calls_stay(redis_url: str) -> None:
    bench = Bench(redis_url, partitions=4)

    async def handle(one: CallEvent, context: Context) -> None: ...

    async with inboxes(redis_url) as all_of:
        few, many = all_of.process(4), all_of.process(16)
        await few.numbering.announce()
        await all_of.append(few, *(event(call, 0) for call in calls(30)))
        await bench.deliver(handle)
        await many.numbering.announce()
        all_of.blocking.delete(*map(keys.staying, range(4)))  # the store alone says it
        await all_of.append(many, *(event(call, 1) for call in calls(30)))
        for call in calls(30):
            assert all_of.partitions_of(call) == {partition_of(event(call), 4)}
            kept = await Calls(many).get(f"main/{call}")
            assert kept is not None
            assert kept.partition == partition_of(event(call), 4)
            assert len(await Calls(many).events(kept)) == 1


async def test_a_long_backlog_stays(redis_url: str) -> None:
    async with inboxes(redis_url) as all_of:
        few, many = all_of.process(2), all_of.process(7)
        await few.numbering.announce()
        for at in range(0, 1300, 100):
            await all_of.append(few, *(event(f"c{n}", 0) for n in range(at, at + 100)))
        all_of.blocking.xadd(keys.inbox(0), {"e": "not JSON", "n": 0})
        all_of.blocking.xadd(keys.inbox(0), {"e": "[1]", "n": 0})
        await many.numbering.announce()
        places = await many.numbering.places(f"main/c{n}" for n in range(1300))
        for n in range(1300):
            assert places[f"main/c{n}"] == partition_of(event(f"c{n}"), 2)


async def test_backlogs_of_several_tenants_hold_up_no_change(redis_url: str) -> None:
    async with inboxes(redis_url) as all_of:
        few, many = all_of.process(1), all_of.process(2)
        await few.numbering.announce()
        for tenant in ("a", "b", "c"):
            events = [msgspec.structs.replace(event(f"c{n}"), tenant=tenant) for n in range(300)]
            [batch] = all_of.batches(few, *events)
            await few.append(msgspec.structs.replace(batch, tenants=[tenant] * 300), 0)
        async with asyncio.timeout(30):
            await many.numbering.announce()
        places = await many.numbering.places(f"c:main/c{n}" for n in range(300))
        assert set(places.values()) == {0}


async def test_a_distant_server_is_waited_for_few_times(redis_url: str) -> None:
    # A receiver that waited once for each partition would use its journal meanwhile.
    async with inboxes(redis_url) as all_of:
        few, many = all_of.process(16), all_of.process(64)
        await few.register({"h": "now"})
        await few.numbering.announce()
        execute = type(all_of._redis).execute_command
        waits = together = 0

        async def slowly(*arguments: Any, **options: Any) -> Any:
            nonlocal waits, together
            waits += not together  # else it waits beside others
            together += 1
            await asyncio.sleep(0.05)
            together -= 1
            return await execute(all_of._redis, *arguments, **options)

        with patch.object(all_of._redis, "execute_command", slowly):
            await many.numbering.announce()
        assert 0 < waits < 32


async def test_batch_that_is_sent_again_after_a_change_is_appended_once(redis_url: str) -> None:
    async with inboxes(redis_url) as all_of:
        few, many = all_of.process(4), all_of.process(16)
        await few.numbering.announce()
        batches = all_of.batches(few, *(event(call, 0) for call in calls(40)))
        for batch in batches:
            await few.append(batch, 0)
        await many.numbering.announce()
        for batch in batches:  # its response was lost
            await few.append(batch, 0)
        assert all(len(found) == 1 for found in all_of.contents().values())


@pytest.mark.parametrize("after", [4, 24, 64])
async def test_batch_of_which_a_part_was_appended_is_completed(redis_url: str, after: int) -> None:
    async with inboxes(redis_url) as all_of:
        first, few, many = all_of.process(2), all_of.process(4), all_of.process(16)
        await first.numbering.announce()
        await few.numbering.announce()
        await many.numbering.announce()
        events = [event(call, n) for n in range(2) for call in calls(60)]
        [*batches] = all_of.batches(few, *events)
        send, sent = Appender._send, 0

        async def fail_later(*arguments: Any) -> Any:
            nonlocal sent
            sent += 1
            if sent % 3 == 0:
                raise RedisConnectionError("gone")
            return await send(*arguments)

        with patch.object(Appender, "_send", fail_later):
            for batch in batches:
                with pytest.raises(InboxUnavailable):
                    await few.append(batch, 0)
        assert 0 < len(all_of.contents()) < 60
        await all_of.process(after).numbering.announce()
        for batch in batches:  # as from the journal
            await few.append(batch, 0)
        for call in calls(60):
            assert len(all_of.partitions_of(call)) == 1
            assert list(dict.fromkeys(all_of.numbers_of(call))) == ["0", "1"]


async def test_number_changes_between_the_parts_of_a_batch(redis_url: str) -> None:
    async with inboxes(redis_url) as all_of:
        few, many, more = (all_of.process(number) for number in (4, 16, 64))
        await few.numbering.announce()
        await many.numbering.announce()
        send, changed = Appender._send, False

        async def change_after_the_first(*arguments: Any) -> Any:
            nonlocal changed
            found = await send(*arguments)
            if not changed:
                changed = True
                await more.numbering.announce()
                await few.numbering.keep_up()
            return found

        with patch.object(Appender, "_send", change_after_the_first):
            await all_of.append(few, *(event(call, 0) for call in calls(60)), writer="few")
        await all_of.append(more, *(event(call, 1) for call in calls(60)), writer="more")
        for call in calls(60):
            assert len(all_of.partitions_of(call)) == 1
            assert all_of.numbers_of(call) == ["0", "1"]


async def test_handlers_begin_at_the_first_event_of_a_new_partition(redis_url: str) -> None:
    bench, got = Bench(redis_url, partitions=4), list[str]()

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.call_id)

    bench.plug(handle)
    async with inboxes(redis_url) as all_of:
        few, many = all_of.process(4), all_of.process(16)
        await few.numbering.announce()
        await few.register(bench.settings.starts)
        async with bench.serving() as server:  # it is configured with 4
            await until(lambda: len(server.share.partitions) == 4)
            await many.numbering.announce()
            await all_of.append(many, *(event(call, 0) for call in calls(60)))
            bench.partitions = 16
            await bench.all_done()
            assert len(server.share.partitions) == 16
    assert sorted(got) == sorted(calls(60))


async def test_dead_letter_is_retried_where_its_call_is(redis_url: str) -> None:
    async with inboxes(redis_url) as all_of:
        few, many = all_of.process(4), all_of.process(16)
        await few.numbering.announce()
        await all_of.append(few, *(event(call, 0) for call in calls(20)))
        await many.numbering.announce()
        again = all_of.process(4)  # an operator's command
        await ParkedLanes(again, "crm").rejoin([event(call, 1) for call in calls(20)])
        for call in calls(20):
            lane = keys.lane(partition_of(event(call), 4), "crm", f"main/{call}")
            assert all_of.blocking.llen(lane) == 1
        await ParkedLanes(again, "crm").rejoin([event("new-one", 1)])
        lane = keys.lane(partition_of(event("new-one"), 16), "crm", "main/new-one")
        assert all_of.blocking.llen(lane) == 1


async def test_earlier_numbers_are_forgotten_when_their_calls_have_expired(redis_url: str) -> None:
    async with inboxes(redis_url) as all_of:
        few, many = all_of.process(4), all_of.process(16)
        await few.numbering.announce()
        await all_of.append(few, event("a"))
        await many.numbering.announce()
        await many.numbering.retire(keep_days=1)
        await many.numbering.load()
        assert many.numbering.earlier == (4,)
        now = int(all_of.blocking.time()[0])
        all_of.blocking.hset(keys.PARTITIONS, "4", (now - 2 * 86_400 - 5) * 1000)
        await many.numbering.retire(keep_days=1)
        assert all_of.blocking.hkeys(keys.PARTITIONS) == [b"layout", b"current", b"epoch"]
        assert not all_of.blocking.keys("offhook:*:staying")
        await many.numbering.load()
        assert many.numbering.settled
        assert many.partitions == 16


async def test_a_call_is_in_one_partition_whatever_happens_at_once(redis_url: str) -> None:
    async with inboxes(redis_url) as all_of:
        for seed in range(5):
            all_of.blocking.flushall()
            await Crowd(all_of, seed).run()
            found = all_of.contents()
            assert len(found) == Crowd.CALLERS * 3 * 4
            for call, its_events in found.items():
                assert len({partition for partition, _ in its_events}) == 1, f"seed {seed}: {call}"
                numbers = [n for _, n in its_events]
                assert list(dict.fromkeys(numbers)) == ["0", "1", "2", "3"], f"seed {seed}: {call}"


class Crowd:
    """Callers whose events come to several processes at once, while the number changes."""

    CALLERS = 24

    def __init__(self, all_of: Inboxes, seed: int) -> None:
        self.all_of = all_of
        self.seed = seed
        self.dice = Random(seed)
        self.processes = [all_of.process(number) for number in (4, 4, 6, 16)]
        self.going_on = self.CALLERS

    async def run(self) -> None:
        await self.processes[0].numbering.announce()
        callers = (self.call(number) for number in range(self.CALLERS))
        await asyncio.gather(self.change(), *callers)

    async def call(self, number: int) -> None:
        for turn in range(3):
            for n in range(4):
                # Several calls, so that most batches have several parts.
                events = [event(f"call-{number}-{turn}-{other}", n) for other in range(4)]
                chosen = self.dice.choice(self.processes)
                for batch in self.all_of.batches(chosen, *events, writer=f"{self.seed}-{number}"):
                    await self.append(chosen, batch)
        self.going_on -= 1

    async def append(self, inbox: Inbox, batch: Batch) -> None:
        while True:
            with suppress(InboxUnavailable):  # the number changes too often
                await inbox.append(batch, 0)
                return

    async def change(self) -> None:
        while self.going_on:
            chosen = self.dice.randrange(4)
            if self.dice.random() < 0.5:
                await self.processes[chosen].numbering.load()
            else:
                self.processes[chosen] = self.all_of.process(self.dice.choice((3, 4, 6, 16)))
                await self.processes[chosen].numbering.announce()
            await asyncio.sleep(self.dice.uniform(0, 0.05))


async def test_a_call_is_in_one_partition_whatever_the_number_does(redis_url: str) -> None:
    async with inboxes(redis_url) as all_of:
        for seed in range(10):
            all_of.blocking.flushall()
            dice = Random(seed)
            processes = [all_of.process(dice.choice((1, 3, 4, 6, 16))) for _ in range(4)]
            await processes[0].numbering.announce()
            sent: dict[str, int] = defaultdict(int)
            for _ in range(40):
                chosen = dice.randrange(4)
                process = processes[chosen]
                action = dice.random()
                if action < 0.15:
                    processes[chosen] = all_of.process(dice.choice((1, 3, 4, 6, 16)))
                    await processes[chosen].numbering.announce()
                elif action < 0.25:
                    await process.numbering.keep_up()
                elif action < 0.35:
                    await process.numbering.load()
                else:
                    some = [f"c{dice.randrange(30)}" for _ in range(3)]
                    events = []
                    for call in some:
                        events.append(event(call, sent[call]))
                        sent[call] += 1
                    await all_of.append(process, *events, writer=f"w{chosen}-{seed}-{id(process)}")
            for call, found in all_of.contents().items():
                assert len({partition for partition, _ in found}) == 1, f"seed {seed}: {call}"
                assert [int(n) for _, n in found] == list(range(sent[call])), f"seed {seed}: {call}"
            assert all_of.contents().keys() == sent.keys()
