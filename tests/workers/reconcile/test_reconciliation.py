"""Reconciliation against a sandbox PBX over HTTP, and calls on a real server."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from offhook import CallEvent, EventType, ExtensionSettings, queues
from offhook.announcements import announce
from offhook.errors import ConfigError, InboxUnavailable, NotYet
from offhook.event import from_stored
from offhook.extensions import Extensions
from offhook.inbox import CALL_LOG, Inbox
from offhook.inbox.call_store import Calls
from offhook.settings import load_settings
from offhook.testing import sample_event
from tests.conftest import Configure
from tests.events import batch_of
from tests.offhook.sandbox import sandbox
from tests.workers.reconcile.reconciling import (
    HOUR,
    PHONES,
    QUEUE,
    STREAM,
    Bench,
    configuration,
    recovered_id,
)
from unifiedapi.errors import NoAnswer
from unifiedapi.sandbox.call_records import record_of
from unifiedapi.sandbox.scenarios import Scenario, make_call
from unifiedapi.sandbox.scenarios import ScriptedCall as PlacedCall
from workers import fold_calls as calls_job
from workers.reconcile import reconciliation as module
from workers.reconcile.reconciliation import Reconciliation

T = EventType


@pytest.fixture
def bench(redis_url: str, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(calls_job, "QUIET", 0.2)
    monkeypatch.setattr(calls_job, "BLOCK_MS", 200)
    with sandbox() as pbx:
        configure(configuration(pbx))
        made = Bench(pbx, redis_url)
        yield made
        made.redis.close()


def test_what_is_missing_is_told_once_and_what_is_there_not_again(bench: Bench) -> None:
    whole = bench.place("ring-group")
    endless = bench.place("transfer", "hangup", seed=2)
    lost = bench.place("missed", "all", seed=3)
    bench.keep()
    before = bench.told(whole.id)
    done = bench.reconcile()
    bench.keep()
    assert done is not None
    assert (done.records, done.here) == (3, 2)
    assert [call.id for call in done.closed] == [endless.id]
    assert [record.call_id for record in done.recovered] == [recovered_id(lost)]
    assert bench.told(whole.id) == before
    assert bench.told(endless.id) == ["call-started", "call-answered", "call-ended"]
    assert bench.told(recovered_id(lost)) == ["call-started", "call-ended", "missed-call"]
    calls = bench.calls()
    assert len(calls) == 3
    ended, missed = calls[endless.id], calls[recovered_id(lost)]
    assert (ended.closed_by, ended.recovered, ended.outcome) == ("records", False, "answered")
    assert (missed.closed_by, missed.recovered, missed.outcome) == ("records", True, "missed")
    [*_, last] = endless.callbacks
    assert ended.ended is not None
    assert ended.started + timedelta(seconds=last.at) == pytest.approx(
        ended.ended, abs=timedelta(seconds=2)
    )
    again = bench.reconcile()
    bench.keep()
    assert again is not None
    assert (again.records, again.here, again.closed, again.recovered) == (3, 3, (), ())
    assert bench.calls() == calls
    assert max(Counter(event.id for event in bench.events()).values()) == 1


def test_twice_before_the_calls_are_put_together_it_is_told_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a job was killed after the append: what it had done is done again."""
    lost = bench.place("answered", "all")
    bench.keep()
    monkeypatch.setattr(Calls, "caught_up", _at_once)
    events = [bench.reconcile() and bench.events() for _ in range(2)]
    assert [event.type for event in events[0] or []] == [T.CALL_RECORD]
    assert events[0] == events[1]
    bench.keep()
    assert bench.told(recovered_id(lost)) == ["call-started", "call-answered", "call-ended"]


async def _now(work: Reconciliation, until: datetime) -> None:
    """The server may have just been started."""


async def _at_once(calls: Calls, until: datetime) -> bool:
    return True


def test_a_record_that_comes_twice_all_the_same_changes_nothing(bench: Bench) -> None:
    bench.place("answered", "all")
    bench.keep()
    bench.reconcile()
    bench.keep()
    [record, *told] = bench.events()
    assert record.type is T.CALL_RECORD
    bench.run(lambda inbox: inbox.append(batch_of(record, marks=["another"]), [], 0))
    bench.keep()
    assert bench.events() == [record, *told, record]


def test_a_dry_run_tells_nobody(bench: Bench) -> None:
    bench.place("answered", "all")
    bench.keep()
    done = bench.reconcile(dry_run=True)
    assert done is not None
    assert len(done.recovered) == 1
    assert bench.events() == []


def test_what_a_record_has_told_is_not_closed_again_while_it_settles(bench: Bench) -> None:
    bench.place("answered", "hangup")
    bench.keep()
    bench.reconcile()
    bench.settings = bench.settings.model_copy(update={"settle": 60.0})

    async def fold_only() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(calls_job.CallKeeper, "_end_windows", _stop)
            await calls_job.keep_calls(bench.settings, 0)

    asyncio.run(fold_only())
    assert all(call.closed_by is None for call in bench.calls().values())
    again = bench.reconcile()
    assert again is not None
    assert again.closed == ()


async def _stop(keeper: calls_job.CallKeeper) -> None:
    keeper._stop.set()


def test_the_id_of_the_callbacks_is_known_here(bench: Bench) -> None:
    """Neither numbers nor time agree."""
    call = bench.place("answered", record=False, ago=timedelta(minutes=20))
    over = datetime.now(UTC) - timedelta(minutes=40)
    callbacks = tuple(
        replace(callback, parameters={**callback.parameters, "CallerIDNum": "12025550199"})
        for callback in call.callbacks
    )
    other = PlacedCall(call.id, call.scenario, callbacks)
    bench.pbx.store.add_record(record_of(other, over - timedelta(minutes=5), over))
    bench.keep()
    done = bench.reconcile()
    assert done is not None
    assert (done.records, done.here) == (1, 1)


def test_a_call_that_silence_closed_is_corrected(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = bench.place("answered", "hangup")
    short = bench.settings
    bench.settings = short.model_copy(update={"call_timeout": 0.0})
    bench.keep()
    assert bench.calls()[call.id].closed_by == "silence"
    bench.reconcile()
    bench.settings = short
    bench.keep()
    assert bench.told(call.id)[-2:] == ["call-ended", "call-corrected"]
    assert bench.calls()[call.id].talk_seconds


def test_only_what_was_set_up_counts(bench: Bench) -> None:
    lost = bench.place("missed", "all")
    bench.run(
        lambda inbox: Extensions(inbox.redis).change(
            {}, [("main", number) for number in (*PHONES, QUEUE)]
        )
    )
    assert bench.reconcile() is not None
    assert bench.events() == []
    bench.run(
        lambda inbox: Extensions(inbox.redis).change(
            {("elsewhere", lost.callbacks[0].extension): ExtensionSettings()}
        )
    )
    done = bench.reconcile()
    assert done is not None
    assert done.records == 0


# The job


def test_the_first_time_the_job_only_begins(bench: Bench) -> None:
    bench.place("missed", "all")
    bench.keep()
    assert bench.reconcile(since=None) is None
    assert bench.events() == []


def test_the_job_goes_on_where_it_was(bench: Bench) -> None:
    bench.reconcile(since=None)
    lost = bench.place("missed", "all", ago=timedelta(seconds=50))
    _ago(bench, timedelta(hours=5))
    bench.keep()
    done = bench.reconcile(since=None)
    assert done is not None
    assert [record.call_id for record in done.recovered] == [recovered_id(lost)]
    assert done.since < datetime.now(UTC) - timedelta(hours=5)
    bench.keep()
    later = bench.reconcile(since=None)
    assert later is not None
    assert later.since > done.until - 2 * module.AGAIN


def _ago(bench: Bench, ago: timedelta) -> None:
    """As if the job had run then for the last time."""
    at = (datetime.now(UTC) - ago).isoformat()
    names: Any = bench.redis.hkeys("offhook:reconciled:main")
    bench.redis.hset("offhook:reconciled:main", mapping=dict.fromkeys(names, at))


def test_calls_from_before_an_extension_was_set_up_are_not_delivered(bench: Bench) -> None:
    call = make_call(Scenario.MISSED, Random(1), PHONES)
    [number] = {callback.extension for callback in call.callbacks}
    bench.run(lambda inbox: Extensions(inbox.redis).change({}, [("main", number)]))
    bench.reconcile(since=None)
    _ago(bench, timedelta(hours=5))
    bench.place("missed", "all")
    bench.set_up(number)
    done = bench.reconcile(since=None)
    assert done is not None
    assert done.records == 0
    by_hand = bench.reconcile()
    assert by_hand is not None
    assert by_hand.records == 1


def test_a_pbx_that_does_not_answer_is_asked_for_all_of_it_the_next_time(bench: Bench) -> None:
    bench.reconcile(since=None)
    _ago(bench, timedelta(hours=5))
    lost = bench.place("missed", "all", ago=3 * HOUR)
    bench.keep()
    bench.pbx.dies_after = len(bench.pbx.requests) + 2  # in the middle
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unifiedapi.client.WAITS", ())
        patch.setattr("unifiedapi.transport.WAITS", ())
        with pytest.raises(NoAnswer):
            bench.reconcile(since=None)
    assert bench.events() == []
    bench.pbx.dies_after = None
    done = bench.reconcile(since=None)
    assert done is not None
    assert [record.call_id for record in done.recovered] == [recovered_id(lost)]


# When to wait


def test_a_young_record_waits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reconciliation, "_wait_for_calls", _now)
    bench.place("missed", "all", ago=timedelta(minutes=5))
    bench.keep()
    done = bench.reconcile(young=timedelta(minutes=10))
    assert done is not None
    assert done.records == 0


def test_calls_that_are_not_put_together_yet_are_not_missing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOKS", 0)
    bench.place("answered")
    with pytest.raises(NotYet, match="are the workers running"):
        bench.reconcile()
    assert [e.type for e in bench.events()] == [T.DIAL_IN, T.ANSWER_IN, T.HANGUP]
    monkeypatch.setattr(module, "_LOOKS", 1)
    bench.keep()
    done = bench.reconcile()
    assert done is not None
    assert (done.records, done.here) == (1, 1)


def test_what_was_read_and_is_in_no_call_yet_is_not_put_together(bench: Bench) -> None:
    bench.place("answered")
    later = datetime.now(UTC) + timedelta(seconds=1)

    async def go(inbox: Inbox) -> list[bool]:
        calls = Calls(inbox)
        unread = await calls.caught_up(later)
        earlier = await calls.caught_up(datetime.now(UTC) - HOUR)
        read: Any = await inbox.redis.xreadgroup(CALL_LOG, "dead", {STREAM: ">"})
        in_flight = await calls.caught_up(later)
        await inbox.redis.xack(STREAM, CALL_LOG, *(position for position, _ in read[0][1]))
        return [unread, earlier, in_flight, await calls.caught_up(later)]

    assert bench.run(go) == [False, True, False, True]


def test_after_a_start_of_the_server_journals_come_first(bench: Bench) -> None:
    bench.place("missed", "all", ago=timedelta(days=2))
    with pytest.raises(NotYet, match="just been started"):
        bench.reconcile(timedelta(days=3), young=timedelta(days=1))


def test_of_calls_that_are_kept_no_more_nothing_is_told(bench: Bench) -> None:
    bench.place("missed", "all", ago=timedelta(days=7, hours=1))
    now = datetime.now(UTC)
    long = make_call(Scenario.ANSWERED, Random(3), PHONES)
    bench.pbx.store.add_record(
        record_of(long, now - timedelta(days=7, hours=1), now - timedelta(days=6, hours=23))
    )
    kept = bench.place("missed", "all", seed=2, ago=timedelta(days=6, hours=23))
    bench.keep()
    done = bench.reconcile(timedelta(days=30))
    assert done is not None
    assert [record.call_id for record in done.recovered] == [recovered_id(kept)]


def test_a_wrong_time_zone_is_noticed_and_nothing_is_told(bench: Bench) -> None:
    for seed in range(12):
        ago = HOUR + seed * timedelta(minutes=15)
        call = bench.place("answered", "hangup", seed=seed, ago=ago, record=False)
        began = datetime.now(UTC) - ago - HOUR
        ids = {"CallAPIID": f"other-{seed}"}
        callbacks = tuple(
            replace(callback, parameters={**callback.parameters, **ids})
            for callback in call.callbacks
        )
        moved = PlacedCall(call.id, call.scenario, callbacks)
        bench.pbx.store.add_record(record_of(moved, began, began + timedelta(minutes=5)))
    bench.keep()
    before = bench.events()
    with pytest.raises(ConfigError, match=r"pbx\.main: .*is its `zone` right"):
        bench.reconcile()
    assert bench.events() == before


def test_a_pbx_that_has_no_record_of_any_call_is_doubted(bench: Bench) -> None:
    bench.reconcile(since=None)
    _ago(bench, timedelta(hours=5))
    for seed in range(4):
        bench.place("answered", seed=seed, record=False)
    bench.keep()
    assert bench.reconcile(since=None) is not None  # so few
    _ago(bench, timedelta(hours=5))
    bench.place("answered", seed=4, record=False)
    bench.keep()
    with pytest.raises(ConfigError, match="may the API's user see the call records"):
        bench.reconcile(since=None)


def test_without_a_time_zone_nothing_is_compared(bench: Bench, configure: Configure) -> None:
    configure(f"[pbx.main]\nhost = '{bench.pbx.url}'\ntoken = 'sandbox-token'\ninsecure = true\n")
    bench.settings = load_settings()
    with pytest.raises(ConfigError, match=r"pbx\.main\.zone: is not set"):
        bench.reconcile()


def test_records_are_dated_in_the_pbx_s_zone(bench: Bench, configure: Configure) -> None:
    bench.pbx.store.zone = ZoneInfo("Asia/Tokyo")
    bench.place("missed", "all")
    bench.keep()
    done = bench.reconcile(2 * HOUR)
    assert done is not None
    assert done.records == 0  # asked for in UTC, it looks at another time
    configure(
        f"[pbx.main]\nhost = '{bench.pbx.url}'\ntoken = 'sandbox-token'\ninsecure = true\n"
        "zone = 'Asia/Tokyo'\n"
    )
    bench.settings = load_settings()
    done = bench.reconcile(2 * HOUR)
    assert done is not None
    assert done.records == 1


def test_more_records_than_an_answer_may_have_are_asked_for_in_parts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(12):
        bench.place("missed", "all", seed=seed, ago=HOUR + seed * timedelta(minutes=2))
    bench.keep()
    monkeypatch.setattr(module, "REACHABLE", 3)
    done = bench.reconcile()
    assert done is not None
    assert done.records == 12


# Events of Offhook's own


def test_announcing_wakes_who_is_to_deliver(bench: Bench) -> None:
    lost = bench.place("missed", "all")
    bench.keep()
    bench.redis.delete("offhook:{0}:awake:screen", "offhook:{0}:awake:calls")
    bench.reconcile()
    for name in ("screen", CALL_LOG):
        waiting = queues.queue(queues.dispatch_queue(name, 0), bench.redis)
        assert waiting.count == 1, name
    bench.keep()
    assert bench.told(recovered_id(lost))


def test_announcing_many_is_in_order_and_each_is_there_once(bench: Bench) -> None:
    many = [msgspec.structs.replace(_sample(f"call-{n % 7}"), id=f"{n:032x}") for n in range(1200)]

    async def go(inbox: Inbox) -> list[int]:
        two = Inbox(inbox.redis, 2)
        settings = bench.settings.model_copy(update={"partitions": 2})
        return [await announce(settings, two, bench.redis, many, window=60) for _ in range(2)]

    assert bench.run(go) == [1200, 0]
    found: list[CallEvent] = []
    for partition in range(2):
        entries: Any = bench.redis.xrange(f"offhook:{{{partition}}}:inbox")
        part = [from_stored(fields[b"e"]) for _, fields in entries]
        assert [e.id for e in part] == sorted(e.id for e in part)
        found += part
    assert {e.id for e in found} == {e.id for e in many}


def _sample(call: str) -> CallEvent:
    return sample_event("extension-silent", call_id=call)


def test_an_inbox_that_is_away_is_told(bench: Bench) -> None:
    bench.place("missed", "all")
    bench.keep()
    memory: Any = bench.redis.info("memory")
    bench.redis.config_set("maxmemory", int(memory["used_memory"] * 1.05))  # quite full
    try:
        with pytest.raises(InboxUnavailable, match="did not take the events"):
            bench.reconcile()
    finally:
        bench.redis.config_set("maxmemory", 0)
    assert bench.events() == []
