"""Reconciliation with a sandbox PBX over HTTP and a real server."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from offhook import CallEvent, EventType, ExtensionSettings
from offhook.announcements import announce
from offhook.errors import ConfigError, InboxUnavailable, NotYet
from offhook.event import from_stored
from offhook.extensions import Extensions
from offhook.inbox import Inbox
from offhook.inbox.call_store import caught_up
from offhook.operations.proof import DayProof, compared_until, days_of
from offhook.settings import load_settings
from offhook.testing import sample_event
from tests.conftest import Configure
from tests.events import batch_of
from tests.nearly_full import nearly_full
from tests.offhook.sandbox import sandbox
from tests.workers.folded import fold
from tests.workers.reconcile.reconciling import (
    HOUR,
    PHONES,
    QUEUE,
    Bench,
    configuration,
    recovered_id,
)
from unifiedapi.errors import NoAnswer
from unifiedapi.sandbox.call_records import record_of
from unifiedapi.sandbox.scenarios import Scenario, make_call
from unifiedapi.sandbox.scenarios import ScriptedCall as PlacedCall
from workers.reconcile import reconciliation as module
from workers.reconcile.reconciliation import Reconciliation
from workers.serving import folding

T = EventType


@pytest.fixture
def bench(redis_url: str, configure: Configure) -> Iterator[Bench]:
    with sandbox() as pbx:
        configure(configuration(pbx))
        made = Bench(pbx, redis_url)
        yield made
        made.redis.close()


def test_missing_calls_are_announced_once(bench: Bench) -> None:
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


def test_repeated_run_before_folding_announces_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a job that was killed between the append and its record of it."""
    lost = bench.place("answered", "all")
    bench.keep()
    monkeypatch.setattr(module, "caught_up", _at_once)
    events = [bench.reconcile() and bench.events() for _ in range(2)]
    assert [event.type for event in events[0] or []] == [T.CALL_RECORD]
    assert events[0] == events[1]
    bench.keep()
    assert bench.told(recovered_id(lost)) == ["call-started", "call-answered", "call-ended"]


async def _now(work: Reconciliation, until: datetime, tenant: str) -> None:
    """Do not wait: the server of this test was just started."""


async def _at_once(inbox: Inbox, until: datetime, tenant: str) -> bool:
    return True


def test_duplicate_record_event_changes_nothing(bench: Bench) -> None:
    bench.place("answered", "all")
    bench.keep()
    bench.reconcile()
    bench.keep()
    [record, *told] = bench.events()
    assert record.type is T.CALL_RECORD
    bench.run(lambda inbox: inbox.append(batch_of(record, marks=["another"]), 0))
    bench.keep()
    assert bench.events() == [record, *told, record]


def test_dry_run_adds_no_events(bench: Bench) -> None:
    bench.place("answered", "all")
    bench.keep()
    done = bench.reconcile(dry_run=True)
    assert done is not None
    assert len(done.recovered) == 1
    assert bench.events() == []


def test_call_that_settles_is_not_closed_again(bench: Bench) -> None:
    bench.place("answered", "hangup")
    bench.keep()
    bench.reconcile()
    bench.settings = bench.settings.model_copy(update={"settle": 60.0, "settle_unanswered": 60.0})
    fold(bench.settings, settled=False)
    assert all(call.closed_by is None for call in bench.calls().values())
    again = bench.reconcile()
    assert again is not None
    assert again.closed == ()


def test_record_matches_by_the_callbacks_id(bench: Bench) -> None:
    """Neither the numbers nor the times match."""
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


def test_call_closed_by_silence_is_corrected(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    call = bench.place("answered", "hangup")
    monkeypatch.setattr(folding, "SWEEP_EVERY", 0.05)
    fold(bench.settings.model_copy(update={"call_timeout": 0.0, "pbx": {}}), closed=True)
    assert bench.calls()[call.id].closed_by == "silence"
    bench.reconcile()
    bench.keep()
    assert bench.told(call.id)[-2:] == ["call-ended", "call-corrected"]
    assert bench.calls()[call.id].talk_seconds


def test_only_extensions_that_are_set_up_count(bench: Bench) -> None:
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


def test_first_run_compares_nothing(bench: Bench) -> None:
    bench.place("missed", "all")
    bench.keep()
    assert bench.reconcile(since=None) is None
    assert bench.events() == []


def test_next_run_continues_from_the_last(bench: Bench) -> None:
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
    assert later.since > done.until - 2 * module.OVERLAP


def test_run_after_a_long_break_compares_a_day(bench: Bench) -> None:
    bench.reconcile(since=None)
    lost = [
        bench.place("missed", "all", seed=days, ago=timedelta(days=days, hours=-2))
        for days in (1, 2, 3)
    ]
    _ago(bench, timedelta(days=3))
    until = datetime.now(UTC) - timedelta(days=3)
    for each in reversed(lost):
        bench.keep()
        done = bench.reconcile(since=None)
        assert done is not None
        assert [record.call_id for record in done.recovered] == [recovered_id(each)]
        assert abs(done.until - until - timedelta(days=1)) < timedelta(minutes=1)
        until = done.until


def test_each_record_counts_once_for_its_day(bench: Bench) -> None:
    bench.reconcile(since=None)
    minutes = timedelta(minutes=40)
    whole = bench.place("answered", ago=minutes)
    endless = bench.place("answered", "hangup", seed=2, ago=minutes)
    lost = bench.place("missed", "all", seed=3, ago=minutes)
    _ago(bench, timedelta(hours=5))
    bench.keep()
    assert bench.run(lambda inbox: days_of(inbox.redis, "main")) == []
    for _ in range(2):  # the second time, all of them are in the part that is compared again
        bench.reconcile(since=None)
        bench.keep()
        days = bench.run(lambda inbox: days_of(inbox.redis, "main"))
        assert sum(each.records for each in days) == 3
        assert sum(each.here for each in days) == 2
        assert [name for each in days for name in each.recovered] == [f"main/{recovered_id(lost)}"]
        assert [name for each in days for name in each.closed] == [f"main/{endless.id}"]
        assert sum(each.missing for each in days) == 0
        assert whole.id not in str(days)
        assert bench.run(lambda inbox: compared_until(inbox.redis, "main")) is not None
    old = DayProof(day=date(2020, 1, 1), compared=datetime(2020, 1, 1, tzinfo=UTC))
    bench.redis.hset("offhook:proof:main", "2020-01-01", msgspec.json.encode(old))
    assert len(bench.run(lambda inbox: days_of(inbox.redis, "main"))) == len(days)


def _ago(bench: Bench, ago: timedelta) -> None:
    """Pretend that the last run was this long ago."""
    at = (datetime.now(UTC) - ago).isoformat()
    names: Any = bench.redis.hkeys("offhook:reconciled:main")
    bench.redis.hset("offhook:reconciled:main", mapping=dict.fromkeys(names, at))


def test_calls_before_the_extension_was_set_up_are_not_recovered(bench: Bench) -> None:
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


@pytest.mark.usefixtures("quick_retries")
def test_failed_run_is_repeated_in_full(bench: Bench) -> None:
    bench.reconcile(since=None)
    _ago(bench, timedelta(hours=5))
    lost = bench.place("missed", "all", ago=3 * HOUR)
    bench.keep()
    bench.pbx.dies_after = len(bench.pbx.requests) + 2  # fails in the middle
    with pytest.raises(NoAnswer):
        bench.reconcile(since=None)
    assert bench.events() == []
    bench.pbx.dies_after = None
    done = bench.reconcile(since=None)
    assert done is not None
    assert [record.call_id for record in done.recovered] == [recovered_id(lost)]


# Waiting


def test_young_record_waits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reconciliation, "_wait_for_calls", _now)
    bench.place("missed", "all", ago=timedelta(minutes=5))
    bench.keep()
    done = bench.reconcile(young=timedelta(minutes=10))
    assert done is not None
    assert done.records == 0


def test_events_not_folded_yet_postpone_the_comparison(bench: Bench) -> None:
    bench.place("answered")
    with pytest.raises(NotYet, match="start the workers"):
        bench.reconcile(checks=0)
    assert [e.type for e in bench.events()] == [T.DIAL_IN, T.ANSWER_IN, T.HANGUP]
    bench.keep()
    done = bench.reconcile(checks=1)
    assert done is not None
    assert (done.records, done.here) == (1, 1)


def test_events_count_as_not_folded_until_they_are(bench: Bench) -> None:
    bench.place("answered")
    later = datetime.now(UTC) + timedelta(seconds=1)

    async def go(inbox: Inbox) -> list[bool]:
        unread = await caught_up(inbox, later)
        earlier = await caught_up(inbox, datetime.now(UTC) - HOUR)
        return [unread, earlier]

    assert bench.run(go) == [False, True]
    bench.keep()
    assert bench.run(go) == [True, True]


def test_server_restart_postpones_the_comparison(bench: Bench) -> None:
    bench.place("missed", "all", ago=timedelta(days=2))
    with pytest.raises(NotYet, match="was just started"):
        bench.reconcile(timedelta(days=3), young=timedelta(days=1))


def test_records_of_deleted_calls_are_ignored(bench: Bench) -> None:
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


def test_wrong_time_zone_is_detected(bench: Bench) -> None:
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
    with pytest.raises(ConfigError, match=r"pbx\.main: .*check its `zone`"):
        bench.reconcile()
    assert bench.events() == before


def test_pbx_without_any_matching_record_is_doubted(bench: Bench) -> None:
    bench.reconcile(since=None)
    _ago(bench, timedelta(hours=5))
    for seed in range(4):
        bench.place("answered", seed=seed, record=False)
    bench.keep()
    assert bench.reconcile(since=None) is not None  # too few to doubt
    _ago(bench, timedelta(hours=5))
    bench.place("answered", seed=4, record=False)
    bench.keep()
    with pytest.raises(ConfigError, match="API's user may see the call records"):
        bench.reconcile(since=None)


def test_missing_time_zone_is_a_configuration_error(bench: Bench, configure: Configure) -> None:
    configure(f"[pbx.main]\nhost = '{bench.pbx.url}'\ntoken = 'sandbox-token'\ninsecure = true\n")
    bench.settings = load_settings()
    with pytest.raises(ConfigError, match=r"pbx\.main\.zone: is not set"):
        bench.reconcile()


def test_records_are_dated_in_the_time_zone_of_the_pbx(bench: Bench, configure: Configure) -> None:
    bench.pbx.store.zone = ZoneInfo("Asia/Tokyo")
    bench.place("missed", "all")
    bench.keep()
    done = bench.reconcile(2 * HOUR)
    assert done is not None
    assert done.records == 0  # a request in UTC covers another time
    configure(
        f"[pbx.main]\nhost = '{bench.pbx.url}'\ntoken = 'sandbox-token'\ninsecure = true\n"
        "zone = 'Asia/Tokyo'\n"
    )
    bench.settings = load_settings()
    done = bench.reconcile(2 * HOUR)
    assert done is not None
    assert done.records == 1


def test_large_numbers_of_records_are_requested_in_parts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(12):
        bench.place("missed", "all", seed=seed, ago=HOUR + seed * timedelta(minutes=2))
    bench.keep()
    monkeypatch.setattr(module, "REACHABLE", 3)
    done = bench.reconcile()
    assert done is not None
    assert done.records == 12


# Announcements


def test_announcing_many_events_keeps_order_and_drops_repeats(bench: Bench) -> None:
    many = [msgspec.structs.replace(_sample(f"call-{n % 7}"), id=f"{n:032x}") for n in range(1200)]

    async def go(inbox: Inbox) -> list[int]:
        two = Inbox(inbox.redis, 2)
        settings = bench.settings.model_copy(update={"partitions": 2})
        return [await announce(settings, two, many, window=60) for _ in range(2)]

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


def test_full_inbox_raises_inbox_unavailable(bench: Bench) -> None:
    bench.place("missed", "all")
    bench.keep()
    with (
        nearly_full(bench.redis),
        pytest.raises(InboxUnavailable, match="did not take the events"),
    ):
        bench.reconcile()
    assert bench.events() == []
