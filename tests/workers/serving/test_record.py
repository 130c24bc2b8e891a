"""The record of deliveries: what the server writes, and what readers get of it."""

import asyncio
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from offhook import CallEvent, Context, PermanentError, TemporaryError
from offhook.event import from_stored
from offhook.inbox import Inbox, keys
from offhook.inbox.partition import Changes, Partition
from offhook.inbox.record import AttemptsPage, Record, WantedAttempts
from offhook.inbox.record_part import (
    LONGEST_ANSWER,
    AttemptMade,
    AttemptOutcome,
    RecordedAttempt,
    RecordPart,
)
from offhook.settings import HandlerSettings
from tests.events import event
from tests.http_target import HttpTarget
from tests.nearly_full import nearly_full
from tests.workers.serving.bench import Bench, until
from workers.scheduler import Scheduler

DELIVERED, FAILED, DEAD = AttemptOutcome.DELIVERED, AttemptOutcome.FAILED, AttemptOutcome.DEAD


async def fails_as_named(one: CallEvent, context: Context) -> None:
    if one.call_id == "rejected":
        raise PermanentError("no such contact")
    if one.call_id == "busy" and context.attempt == 1:
        raise TemporaryError("the target is down", retry_after=1)
    if one.call_id == "bug":
        raise ValueError(10_000 * "x")


async def page(
    bench: Bench, wanted: WantedAttempts | None = None, most: int = 100, **more: Any
) -> AttemptsPage:
    found: AttemptsPage = await bench.with_inbox(
        lambda inbox: Record(inbox).page(wanted or WantedAttempts(), most, **more)
    )
    return found


async def of_call(bench: Bench, call: str, *events: CallEvent) -> list[RecordedAttempt]:
    found: list[RecordedAttempt] = await bench.with_inbox(
        lambda inbox: Record(inbox).of_call(call, events)
    )
    return found


async def deliver_calls(bench: Bench, *calls: str, **policy: Any) -> list[CallEvent]:
    """Deliver an event of each call to `crm`, one after the other."""
    events = [event(call) for call in calls]
    async with bench.serving(fails_as_named, **policy):
        for each in events:
            await bench.append(each)
            await bench.finished()
            await asyncio.sleep(0.002)  # the record counts milliseconds
    return events


async def test_record_has_each_attempt_with_its_outcome_and_answer(bench: Bench) -> None:
    events = [event(call) for call in ("fine", "rejected", "busy", "bug")]
    began = datetime.now(UTC) - timedelta(seconds=1)
    bench.plug(fails_as_named, retry=[1])
    async with bench.serving():
        await bench.append(*events)
        await bench.all_done()
    found = [each for one in events for each in await of_call(bench, one.call, one)]
    assert [(each.call, each.attempt, each.outcome) for each in found] == [
        ("main/fine", 1, DELIVERED),
        ("main/rejected", 1, DEAD),
        ("main/busy", 1, FAILED),
        ("main/busy", 2, DELIVERED),
        ("main/bug", 1, FAILED),
        ("main/bug", 2, DEAD),
    ]
    assert [each.answer for each in found[:4]] == ["", "no such contact", "the target is down", ""]
    for each in found:
        assert began < each.began < datetime.now(UTC)
        assert 0 <= each.took < 20
        assert (each.handler, each.type, each.extension) == ("crm", "dial-in", "0003*210")
    assert found[0].event == events[0].id


async def test_answer_is_bounded(bench: Bench) -> None:
    [bug] = await deliver_calls(bench, "bug", retry=[3600])
    [attempt] = await of_call(bench, bug.call, bug)
    assert attempt.answer == ("ValueError: " + 10_000 * "x")[:LONGEST_ANSWER]


async def test_error_that_utf8_cannot_encode_becomes_a_dead_letter(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest cannot send what is logged from one of its processes to another.
    monkeypatch.setattr(logging.getLogger("offhook"), "disabled", True)
    monkeypatch.setattr(logging.getLogger("offhook.deliver"), "disabled", True)

    async def handle(one: CallEvent, context: Context) -> None:
        raise ValueError("\ud800 is half a character")

    one = event()
    bench.plug(handle, retry=[])
    async with bench.serving():
        await bench.append(one)
        await bench.finished()
    [attempt] = await of_call(bench, one.call, one)
    assert (attempt.outcome, attempt.answer) == (DEAD, "ValueError: ? is half a character")
    [letter] = bench.dead()
    assert "? is half a character" in letter.latest_result().exc_string


async def test_record_quotes_the_start_of_the_response_without_secrets(
    bench: Bench, target: HttpTarget
) -> None:
    async def post(one: CallEvent, context: Context) -> None:
        context.check(await context.http.post(target.url, json={}))

    body = b'{"contact": 7, "phone": "+44 20 7946 0100"}' + 500 * b" x"
    target.plan(201, body=body)
    bench.plug(post)
    one = event()
    async with bench.serving():
        await bench.append(one)
        await bench.finished()
    [attempt] = await of_call(bench, one.call, one)
    assert attempt.answer.startswith('answered 201: {"contact": 7, "phone": "***"} x x')
    assert len(attempt.answer) < 150


async def test_attempts_that_an_open_circuit_spares_are_told_apart(bench: Bench) -> None:
    async def down(one: CallEvent, context: Context) -> None:
        raise TemporaryError("down")

    async with bench.serving(down, retry=[3600], concurrency=1) as server:
        await bench.append(*(event(f"{n}") for n in range(5)))
        await until(lambda: bench.served(server).circuit.state == "open", "the circuit is open")
    found = (await page(bench)).attempts
    spared = AttemptOutcome.CIRCUIT_OPEN
    assert Counter(each.outcome for each in found) == {FAILED: 4, spared: 1}
    assert (await bench.state()).failed == 5


async def test_only_failures_and_redeliveries_are_recorded_if_so_configured(bench: Bench) -> None:
    bench.change(record="failures")
    bench.plug(fails_as_named, retry=[1])
    async with bench.serving():
        await bench.append(event("fine"), event("busy"), event("rejected"))
        await bench.all_done()
    found = (await page(bench)).attempts
    assert sorted((each.call, each.attempt, each.outcome) for each in found) == [
        ("main/busy", 1, FAILED),
        ("main/busy", 2, DELIVERED),
        ("main/rejected", 1, DEAD),
    ]


async def test_killed_process_loses_the_record_with_the_acknowledgement(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = bench.record()
    one = event()
    server, task = await bench.start()
    await until(lambda: server.share.partitions and server.share.partitions[0].opened, "it serves")

    async def stuck(self: object) -> None:
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(type(server.share.partitions[0].writer), "_flush", stuck)
        await bench.append(one)
        await until(lambda: got, "it is delivered")
        await bench.kill(server, task)
    assert await of_call(bench, one.call, one) == []
    await bench.deliver()
    assert len(got) == 2
    assert [each.outcome for each in await of_call(bench, one.call, one)] == [DELIVERED]


async def test_write_that_is_sent_again_records_its_attempts_once(bench: Bench) -> None:
    part = RecordPart("")
    part.add(event(), AttemptMade("crm", 1, 1, 1, DELIVERED, ""))

    async def write(inbox: Inbox) -> None:
        partition = Partition(inbox.redis, inbox.redis, 0)
        await partition.lease.take()
        send = partition.numbered(Changes(record=[part]))
        await send()
        await send()

    await bench.with_inbox(write)
    assert len((await page(bench)).attempts) == 1


async def test_record_is_left_out_while_memory_is_scarce(bench: Bench) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handle(one: CallEvent, context: Context) -> None:
        begun.set()
        await go_on.wait()

    async with bench.serving(handle):
        await bench.append(event())
        await begun.wait()
        with nearly_full(bench.redis):
            go_on.set()
            await until(lambda: bench.redis.exists(bench.key("counts:crm")), "it is written")
        await bench.finished()
    assert (await bench.state()).delivered == 1
    assert (await page(bench)).attempts == []


# Reading


async def test_list_is_newest_first_and_has_pages(redis_url: str) -> None:
    bench = Bench(redis_url, 3)
    calls = [f"c{n}" for n in range(7)]
    await deliver_calls(bench, *calls)
    newest_first = [f"main/{call}" for call in reversed(calls)]
    seen: list[str] = []
    before = None
    for size in (3, 3, 1):
        found = await page(bench, most=3, before=before)
        assert len(found.attempts) == size
        seen += [each.call for each in found.attempts]
        before = found.following
    assert seen == newest_first
    assert before is None
    bench.redis.close()


async def test_a_page_may_end_within_what_was_written_at_once(bench: Bench) -> None:
    bench.record()
    await bench.append(*(event(f"c{n}") for n in range(250)))
    await bench.deliver()
    assert 0 < bench.redis.xlen(keys.recorded(0)) < 50
    seen: list[str] = []
    before = None
    while True:
        found = await page(bench, most=40, before=before)
        seen += [each.call for each in found.attempts]
        before = found.following
        if before is None:
            break
        assert len(found.attempts) == 40
    assert len(seen) == 250
    assert set(seen) == {f"main/c{n}" for n in range(250)}


async def test_list_can_be_filtered(bench: Bench) -> None:
    bench.plug(fails_as_named, "other", retry=[3600])
    await deliver_calls(bench, "fine", "rejected", "busy", retry=[3600])
    middle = (await page(bench, WantedAttempts(call="main/rejected"))).attempts
    moment = middle[0].began

    async def found(**wanted: Any) -> list[tuple[str, str]]:
        listed = (await page(bench, WantedAttempts(**wanted))).attempts
        return sorted((each.handler, each.call.removeprefix("main/")) for each in listed)

    both = ("crm", "other")
    assert await found(handler="crm") == [("crm", "busy"), ("crm", "fine"), ("crm", "rejected")]
    assert await found(handler="nobody") == []
    assert await found(outcomes=frozenset((DEAD,))) == [(name, "rejected") for name in both]
    assert await found(outcomes=frozenset((DELIVERED,))) == [(name, "fine") for name in both]
    assert await found(outcomes=frozenset((DEAD, FAILED)), handler="other") == [
        ("other", "busy"),
        ("other", "rejected"),
    ]
    assert await found(call="main/fine") == [(name, "fine") for name in both]
    assert await found(call="main/fine", outcomes=frozenset((DEAD,))) == []
    assert await found(until=moment) == [(name, "fine") for name in both]
    since = {call for _, call in await found(since=moment)}
    assert since == {"rejected", "busy"}


async def test_search_is_cut_short_and_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offhook.inbox.record.MOST_PARTS", 2)
    bench.plug(fails_as_named, "other", extensions=["0003*211"])
    await bench.append(event("first", extension="0003*211"))
    await bench.deliver(fails_as_named)
    await deliver_calls(bench, "second", "third", "fourth")
    wanted, before, pages = WantedAttempts(handler="other"), None, []
    while True:
        found = await page(bench, wanted, before=before)
        pages.append(len(found.attempts))
        before = found.following
        if before is None:
            break
        assert found.searched is not None
    assert sum(pages) == 1
    assert len(pages) > 1


async def test_a_place_that_is_none_is_refused(bench: Bench) -> None:
    for text in ("1", "1-2-3", "1-2-3-x", "1-2-3--4", "1-2-3-4-5", "²-1-1-1"):
        with pytest.raises(ValueError, match="is not the end of a page"):
            await page(bench, before=text)


async def test_calls_with_one_id_share_a_record_and_are_told_apart(bench: Bench) -> None:
    first, second, other = await deliver_calls(bench, "same", "same", "same~2")
    assert [each.event for each in await of_call(bench, "main/same", first)] == [first.id]
    assert [each.event for each in await of_call(bench, "main/same~2", second)] == [second.id]
    assert [each.event for each in await of_call(bench, "main/same~2", other)] == [other.id]


async def test_tenants_with_equal_calls_have_records_of_their_own(bench: Bench) -> None:
    made = AttemptMade("crm", 1, 1, 1, FAILED, "")
    one = event()
    theirs = replace(one, tenant="acme")

    async def write(inbox: Inbox) -> None:
        partition = Partition(inbox.redis, inbox.redis, 0)
        await partition.lease.take()
        parts = [RecordPart(""), RecordPart("acme")]
        for part, each in zip(parts, (one, theirs), strict=True):
            part.add(each, made)
        await partition.numbered(Changes(record=parts))()

    await bench.with_inbox(write)
    for tenant, call in (("", "main/call-1"), ("acme", "acme:main/call-1")):
        assert [each.call for each in (await page(bench, tenant=tenant)).attempts] == [call]
        assert [each.call for each in await of_call(bench, call, one)] == [call]


# Deleting


def cut_before(bench: Bench, call: str) -> None:
    """Delete the events in the inbox that came before a call's first one."""
    stored: Any = bench.redis.xrange(keys.inbox(0))
    first = next(at for at, fields in stored if from_stored(fields[b"e"]).call_id == call)
    bench.redis.xtrim(keys.inbox(0), minid=first, approximate=False)


async def test_record_goes_with_the_events(bench: Bench) -> None:
    await deliver_calls(bench, "old", "rejected", "new", "rejected", retry=[3600])
    cut_before(bench, "new")
    await bench.with_inbox(lambda inbox: Record(inbox).trim(0))
    found = (await page(bench)).attempts
    assert [each.call for each in found] == ["main/rejected", "main/new"]
    assert [each.call for each in (await failures(bench)).attempts] == ["main/rejected"]
    assert sorted(bench.redis.scan_iter("*tried*")) == [
        keys.tried(0, f"main/{call}").encode() for call in ("new", "rejected")
    ]
    assert bench.redis.llen(keys.tried(0, "main/rejected")) == 1
    bench.redis.xtrim(keys.inbox(0), maxlen=0, approximate=False)
    await asyncio.sleep(1.1)  # the record counts seconds then
    await bench.with_inbox(lambda inbox: Record(inbox).trim(0))
    assert not [*bench.redis.scan_iter("*tried*")]
    assert not bench.redis.xlen(keys.recorded(0)) + bench.redis.xlen(keys.failures(0))


async def failures(bench: Bench) -> AttemptsPage:
    return await page(bench, WantedAttempts(outcomes=frozenset((DEAD, FAILED))))


async def test_scheduler_bounds_the_record_by_max_events(bench: Bench) -> None:
    await deliver_calls(bench, *"abcde")
    # An event of each call, and the `call-started` that follows from it.
    bench.change(max_events=4, handlers={"crm": HandlerSettings(use="console")})
    await bench.with_inbox(lambda inbox: Scheduler(bench.settings, inbox, bench.redis).round())
    assert [each.call for each in (await page(bench)).attempts] == ["main/e", "main/d"]


async def test_scheduler_makes_room_in_the_record_too(bench: Bench) -> None:
    await deliver_calls(bench, *"abcde")
    cut_before(bench, "e")
    bench.change(handlers={"crm": HandlerSettings(use="console")})

    async def make_room(inbox: Inbox) -> None:
        await Scheduler(bench.settings, inbox, bench.redis).make_room()

    await bench.with_inbox(make_room)
    assert [each.call for each in (await page(bench)).attempts] == ["main/e"]


async def test_forgotten_handler_is_not_in_the_record(bench: Bench) -> None:
    bench.plug(fails_as_named, "other")
    await deliver_calls(bench, "fine", "rejected")
    before = {
        each.event: each for each in (await page(bench, WantedAttempts(handler="other"))).attempts
    }
    await bench.with_inbox(lambda inbox: Record(inbox).forget("crm"))
    left = (await page(bench)).attempts
    assert {each.event: each for each in left} == before
    await bench.with_inbox(lambda inbox: Record(inbox).forget("other"))
    assert not [*bench.redis.scan_iter("*tried*")]
