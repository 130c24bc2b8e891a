"""The tables `calls` and `legs`: one call is one row, whatever is delivered how often and when."""

import ctypes
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import permutations
from random import Random
from typing import Any

import msgspec
import pytest
from sqlalchemy import Row

from offhook import Call, CallEvent, Gap, Kind, Leg, Outcome, Party, PermanentError
from offhook.testing import configured, deliver, sample_call, sample_event
from tests.workers.handlers.sql_logs import handler, log_of, rows
from workers.handlers.sql import Sql

BEGAN = datetime(2026, 11, 21, 19, 30, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def life(call_id: str, recording: str = "rec-7") -> list[CallEvent]:
    """The events of a transferred call, each with more details than the one before."""
    leg = Leg(extension="0003*210", direction="in", rang=at(0))
    answered = msgspec.structs.replace(leg, answered=at(8))
    gone = msgspec.structs.replace(answered, ended=at(53), status="ANSWER")
    other = Leg(extension="0003*211", direction="in", rang=at(50), answered=at(52), ended=at(90))
    started = sample_call(None, id=call_id, started=at(0), legs=(leg,))
    talks = msgspec.structs.replace(
        started, answered=at(8), answered_by="0003*210", ring_seconds=8.0, legs=(answered,)
    )
    ended = msgspec.structs.replace(
        talks,
        ended=at(53),
        outcome=Outcome.ANSWERED,
        talk_seconds=45.0,
        closed_by="hangup",
        legs=(gone,),
    )
    late = msgspec.structs.replace(
        ended, ended=at(90), talk_seconds=82.0, gaps=(Gap.LATE,), legs=(gone, other)
    )
    last = msgspec.structs.replace(late, recording=recording)
    return [
        sample_event("call-started", summary=started, received=at(0)),
        # Its answer-in was late, so it arrives together with the end.
        sample_event("call-answered", summary=talks, received=at(53)),
        sample_event("call-ended", summary=ended, received=at(53)),
        sample_event("call-corrected", summary=late, received=at(90)),
        sample_event("call-corrected", summary=last, received=at(91)),
    ]


def content(sql: Sql, call_id: str) -> tuple[list[Row[Any]], list[Row[Any]]]:
    """The rows of one call."""
    calls, legs = (
        [row for row in rows(sql, name) if row.call_id == call_id] for name in ("calls", "legs")
    )
    return calls, legs


def test_a_row_has_everything_known_of_the_call(url: str) -> None:
    sql = handler(url)
    call = sample_call(
        caller=Party(number="02079460100", name="Jane", e164="+442079460100", extension="0003*9"),
        called=Party(number="210", did="+40318100210", e164="+40318100210", extension="0003*210"),
        gaps=(Gap.ANSWER, Gap.LATE),
        talk_seconds=None,
        closed_by="records",
        recovered=True,
        recording="rec-7",
    )
    deliver(sql, sample_event("call-ended", summary=call))
    (row,) = rows(sql, "calls")
    found = row._asdict()
    del found["version"]
    assert found == {
        "pbx": "main",
        "call_id": call.id,
        "direction": "in",
        "caller_number": "02079460100",
        "caller_name": "Jane",
        "caller_e164": "+442079460100",
        "caller_extension": "0003*9",
        "called_number": "210",
        "called_e164": "+40318100210",
        "called_did": "+40318100210",
        "called_extension": "0003*210",
        "started": call.started,
        "answered": call.answered,
        "ended": call.ended,
        "answered_by": "0003*210",
        "ring_seconds": 8.0,
        "talk_seconds": None,
        "outcome": "answered",
        "gaps": "answer,late",
        "closed_by": "records",
        "recovered": True,
        "recording": "rec-7",
    }
    assert rows(sql, "events") == []


def test_a_leg_is_a_row(url: str) -> None:
    sql = handler(url)
    legs = (
        Leg(extension="0003*500", kind=Kind.QUEUE, direction="in", rang=at(0), ended=at(60.5)),
        Leg(
            extension="0003*210",
            kind=Kind.PHONE,
            direction="in",
            rang=at(5),
            answered=at(12.25),
            ended=at(60.5),
            status="ANSWER",
            id="sub-1",
        ),
        Leg(extension="0003*210", rang=at(5), ended=at(60.5), status="ANSWER"),
        Leg(extension="0003*212"),
    )
    deliver(sql, sample_event("call-ended", summary=sample_call(legs=legs)))
    keys = {"pbx": "main", "call_id": sample_call().id}
    nothing: dict[str, Any] = {"kind": None, "direction": None, "status": None, "leg_id": None}
    nothing |= {"rang": None, "answered": None, "ended": None}
    nothing |= {"ring_seconds": None, "talk_seconds": None}
    assert [row._asdict() for row in rows(sql, "legs")] == [
        keys
        | nothing
        | {
            "leg": 1,
            "extension": "0003*500",
            "kind": "queue",
            "direction": "in",
            "rang": at(0),
            "ended": at(60.5),
            "ring_seconds": 60.5,
        },
        keys
        | {
            "leg": 2,
            "extension": "0003*210",
            "kind": "phone",
            "direction": "in",
            "rang": at(5),
            "answered": at(12.25),
            "ended": at(60.5),
            "ring_seconds": 7.25,
            "talk_seconds": 48.25,
            "status": "ANSWER",
            "leg_id": "sub-1",
        },
        # Answered at an unknown time, so it did not ring until the end.
        keys
        | nothing
        | {
            "leg": 3,
            "extension": "0003*210",
            "rang": at(5),
            "ended": at(60.5),
            "status": "ANSWER",
        },
        keys | nothing | {"leg": 4, "extension": "0003*212"},
    ]


def test_the_row_grows_with_the_call(url: str) -> None:
    sql = handler(url)
    for event in life("grows"):
        deliver(sql, event)
        assert event.summary
        (row,), legs = content(sql, "grows")
        assert (row.ended, row.outcome, row.talk_seconds, row.recording) == (
            event.summary.ended,
            event.summary.outcome,
            event.summary.talk_seconds,
            event.summary.recording,
        )
        assert [(leg.extension, leg.ended) for leg in legs] == [
            (leg.extension, leg.ended) for leg in event.summary.legs
        ]


def test_the_newest_version_stays_in_any_order(url: str) -> None:
    """As after a replay, or when a dead letter is sent again."""
    sql = handler(url)
    for number, order in enumerate(permutations(range(1, 5))):
        events = life(f"{number}")
        for step, index in enumerate(order):
            deliver(sql, events[index])
            newest = events[max(order[: step + 1])].summary
            assert newest
            (row,), legs = content(sql, f"{number}")
            assert (row.ended, row.outcome, row.recording, row.gaps) == (
                newest.ended,
                newest.outcome,
                newest.recording,
                ",".join(newest.gaps),
            )
            assert [(leg.extension, leg.ended) for leg in legs] == [
                (leg.extension, leg.ended) for leg in newest.legs
            ]


def test_a_whole_replay_changes_nothing(url: str) -> None:
    sql, events = handler(url), life("replayed")
    for event in events:
        deliver(sql, event)
    before = content(sql, "replayed")
    for event in events:
        deliver(sql, event)
        assert content(sql, "replayed") == before


def test_of_two_corrections_with_one_time_the_later_delivered_stays(url: str) -> None:
    sql, last = handler(url), life("tie")[-1]
    assert last.summary
    deliver(sql, last)
    summary = msgspec.structs.replace(last.summary, recording="rec-8")
    deliver(sql, msgspec.structs.replace(last, id="another", summary=summary))
    (row,), _ = content(sql, "tie")
    assert row.recording == "rec-8"


def test_a_missed_call_event_adds_nothing_to_the_row(url: str) -> None:
    sql = handler(url)
    missed = sample_call("missed", id="missed")
    deliver(sql, sample_event("call-ended", summary=missed))
    before = content(sql, "missed")
    deliver(sql, sample_event("missed-call", summary=missed))
    deliver(sql, sample_event("call-started", summary=sample_call(None, id="missed")))
    after = content(sql, "missed")
    assert [row[:-1] for row in after[0]] == [row[:-1] for row in before[0]]  # but its version
    assert after[1] == before[1]
    assert after[0][0].outcome == "missed"


def test_the_same_call_id_of_another_pbx_is_another_call(url: str) -> None:
    sql = handler(url)
    for pbx in ("main", "branch"):
        deliver(sql, sample_event("call-ended", summary=sample_call(pbx=pbx)))
    assert [row.pbx for row in rows(sql, "calls")] == ["branch", "main"]
    assert [row.pbx for row in rows(sql, "legs")] == ["branch", "main"]


def test_the_same_call_id_of_another_tenant_is_another_call(url: str) -> None:
    sql = handler(url)
    for tenant in ("", "acme", "beta"):
        for each in life("c1"):
            deliver(sql, msgspec.structs.replace(each, tenant=tenant))
    calls, legs = content(sql, "c1")
    assert sorted(row.pbx for row in calls) == ["acme:main", "beta:main", "main"]
    assert len(legs) == 6


def test_a_call_without_legs_is_written(url: str) -> None:
    sql = handler(url)
    deliver(sql, sample_event("call-ended", summary=sample_call(legs=())))
    assert len(rows(sql, "calls")) == 1
    assert rows(sql, "legs") == []


def test_a_call_is_not_written_without_its_legs(url: str) -> None:
    sql = handler(url)
    started, *_, last = life("whole")
    deliver(sql, started)
    before = content(sql, "whole")
    assert last.summary
    broken = msgspec.structs.replace(last.summary.legs[0], extension=None)
    summary = msgspec.structs.replace(last.summary, legs=(*last.summary.legs, broken))
    with pytest.raises(PermanentError, match="refuses this event's values"):
        deliver(sql, msgspec.structs.replace(last, summary=summary))
    assert content(sql, "whole") == before


def test_its_default_events_are_raw_events_and_calls() -> None:
    assert {"dial-in", "hangup", "call-ended", "call-corrected"} <= set(Sql.events)
    assert "extension-silent" not in Sql.events


def test_concurrent_threads_write_one_row_per_call(url: str) -> None:
    sql = handler(url)
    events = [event for call in range(12) for event in life(f"{call}") * 2]
    Random(7).shuffle(events)
    with ThreadPoolExecutor(16) as threads:
        for done in [threads.submit(deliver, sql, event) for event in events]:
            done.result(timeout=60)
    assert len(rows(sql, "calls")) == 12
    assert {row.recording for row in rows(sql, "calls")} == {"rec-7"}
    assert len(rows(sql, "legs")) == 24


def _deliver(url: str, events: list[CallEvent], done: "ctypes.c_int", last: int) -> None:
    """What a worker does: go on after the last event that it acknowledged, then acknowledge.

    After `last` it waits to be killed, unless that is the end: else a fast one would be through.
    """
    sql = configured(Sql, url=url)
    for number in range(done.value, last):
        deliver(sql, events[number])
        if number % 3 == 2:  # acknowledgements come in batches
            done.value = number + 1
    if last < len(events):
        signal.pause()
    log_of(sql).engine.dispose()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_killed_workers_leave_each_call_once_and_complete(url: str) -> None:
    """Killed anywhere, also while it makes the tables, and what was on its way delivered again."""
    random = Random(11)
    lives = [life(f"{call}", recording=f"rec-{call}") for call in range(20)]
    events = [event for step in zip(*lives, strict=True) for event in step]
    forked = multiprocessing.get_context("fork")  # as RQ's workers do
    done = forked.RawValue("i", 0)  # a lock would die with its holder
    for kill in range(8):
        last = done.value + 12
        process = forked.Process(target=_deliver, args=(url, events, done, last))
        process.start()
        if kill >= 3:  # before, it makes the tables
            until = done.value + random.randint(3, 9)
            while done.value < until and process.is_alive():
                time.sleep(0.001)
        process.join(random.uniform(0, 0.01 if kill >= 3 else 0.1))
        assert process.pid
        assert process.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        process.join(20)
        assert process.exitcode == -signal.SIGKILL
    process = forked.Process(target=_deliver, args=(url, events, done, len(events)))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    sql = handler(url)
    found = {row.call_id: row for row in rows(sql, "calls")}
    assert len(rows(sql, "calls")) == len(found) == 20
    for call, row in found.items():
        assert (row.recording, row.ended) == (f"rec-{call}", at(90))
    legs = [(row.call_id, row.extension) for row in rows(sql, "legs")]
    assert sorted(legs) == sorted(
        (call, extension) for call in found for extension in ("0003*210", "0003*211")
    )


def test_every_event_of_a_call_is_accepted(url: str) -> None:
    sql = handler(url)
    call: Call | None = None
    for type_ in ("call-started", "call-answered", "call-ended", "missed-call", "call-corrected"):
        event = sample_event(type_)
        call = event.summary
        deliver(sql, event)
    (row,) = rows(sql, "calls")
    assert call
    assert (row.call_id, row.outcome) == (call.id, call.outcome)
