"""Matching of records and calls, and the events of a record."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from offhook.call import Call, Kind, Outcome
from offhook.calls import fold, summarize, tell
from offhook.dialects.voipnow import read_event
from offhook.event import CallEvent, EventType
from unifiedapi.resources import CallRecord
from unifiedapi.sandbox.call_records import record_of
from unifiedapi.sandbox.pbx import Drop
from unifiedapi.sandbox.scenarios import Callback, Scenario, make_call
from unifiedapi.sandbox.scenarios import ScriptedCall as PlacedCall
from unifiedapi.sandbox.services import answer
from unifiedapi.sandbox.services.api_request import ApiRequest as Request
from unifiedapi.sandbox.store import Store
from workers.reconcile.matching import ENOUGH, SLACK, RecordedCall, events, match, read

BEGAN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
PHONES = ("0003*210", "0003*211", "0003*212", "0003*213")
KINDS = {"0003*400": Kind.QUEUE}
SET_UP = dict.fromkeys((*PHONES, *KINDS), BEGAN - timedelta(days=1))


def placed(scenario: str = "answered", seed: int = 1) -> PlacedCall:
    return make_call(Scenario(scenario), Random(seed), PHONES)


def recorded(call: PlacedCall, began: datetime = BEGAN) -> CallRecord:
    """Return the record of a call as the sandbox PBX reports it."""
    store = Store.example()
    store.add_record(record_of(call, began, began + timedelta(seconds=call.callbacks[-1].at)))
    start = (began - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S")
    found = answer(store, Request(store.users[3], "GET", ["cdr"], [("startDate", start)], b"", ""))
    [entry] = found["entry"].values()
    return CallRecord.read(entry)


def about(call: PlacedCall, began: datetime = BEGAN) -> RecordedCall:
    found = read(recorded(call, began), SET_UP)
    assert found is not None
    return found


def event(callback: Callback, began: datetime = BEGAN) -> CallEvent:
    return read_event(
        pbx="main",
        extension=callback.extension,
        type=EventType(callback.type.label),
        parameters=dict(callback.parameters),
        received=began + timedelta(seconds=callback.at),
    )


def call_of(told: Iterable[CallEvent], *, closed: bool = True) -> Call:
    state = None
    for each in told:
        state = fold(state, each, KINDS.get(each.extension))
    assert state is not None
    state, _ = tell(state, "GB", BEGAN, "hangup" if closed else None)
    return summarize(state, "GB")


def here(call: PlacedCall, began: datetime = BEGAN, drop: Drop = Drop.NONE) -> Call:
    """Return our call, made from the callbacks that were not lost."""
    told = [event(callback, began) for callback in call.callbacks if not drop.loses(callback)]
    return call_of(told, closed=drop is Drop.NONE)


def found(records: Sequence[RecordedCall], calls: Sequence[Call]) -> dict[str, list[str]]:
    matches = match(records, calls, {})
    return {record: [call.id for call in theirs] for record, theirs in matches.calls.items()}


# Events of a record


@pytest.mark.parametrize("scenario", Scenario)
@pytest.mark.parametrize("drop", [Drop.HANGUP, Drop.ALL])
def test_record_replaces_lost_callbacks(scenario: Scenario, drop: Drop) -> None:
    for seed in range(3):
        check_record_replaces_lost_callbacks(placed(scenario, seed), drop)


def check_record_replaces_lost_callbacks(call: PlacedCall, drop: Drop) -> None:
    truth = here(call)
    left = [event(callback) for callback in call.callbacks if not drop.loses(callback)]
    told = call_of([*left, *events(about(call), "main", call.id, BEGAN)])
    assert told.direction == truth.direction
    assert told.answered_by == truth.answered_by
    # The PBX has no disposition for a caller who gives up.
    gave_up = truth.outcome is Outcome.CANCELLED
    assert told.outcome == (Outcome.MISSED if gave_up else truth.outcome)
    assert told.extensions
    assert set(told.extensions) == set(truth.extensions)
    assert told.caller.e164 == truth.caller.e164
    assert told.closed_by == "records"
    assert told.recovered is (drop is Drop.ALL)
    assert told.talk_seconds == pytest.approx(truth.talk_seconds, abs=2.5)
    if truth.outcome is Outcome.ANSWERED:
        assert told.ring_seconds == pytest.approx(truth.ring_seconds, abs=1.1)
    else:  # a record does not say how long it rang
        assert told.ring_seconds is None
        assert not told.complete


def test_events_of_a_record_have_stable_ids() -> None:
    record = about(placed("ring-group"))
    first = events(record, "main", "c1", BEGAN)
    again = events(record, "main", "c1", BEGAN + timedelta(days=1))
    assert len({each.id for each in first}) == len(first) == 3
    assert [each.id for each in first] == [each.id for each in again]
    assert {each.id for each in events(record, "other", "c1", BEGAN)}.isdisjoint(
        each.id for each in first
    )
    assert all(len(each.id) == 32 for each in first)


def leg(**fields: Any) -> dict[str, Any]:
    return {"source": "442079460100", "destination": "0003*210", "flow": 8} | fields


def read_legs(*legs: dict[str, Any], **fields: Any) -> RecordedCall | None:
    entry = {"id": "r1", "published": "2026-11-21T09:00:00Z", "phoneCallView": list(legs)} | fields
    since = datetime(2026, 11, 21, 9, tzinfo=UTC)
    return read(CallRecord.read(entry), {"0003*210": since, "0003*211": since})


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({}, [("0003*210", "in")]),
        ({"destination": "210"}, [("0003*210", "in")]),
        ({"destination": "0003*299"}, []),  # not set up
        ({"extension": "0003*299"}, []),
        ({"source": "0003*210", "destination": "442079460100", "flow": 4}, [("0003*210", "out")]),
        # A public number may look like a short extension.
        ({"source": "0003*210", "destination": "211", "flow": 4}, [("0003*210", "out")]),
        ({"source": "210", "destination": "0003*299"}, []),
        (
            {"source": "0003*210", "destination": "0003*211", "flow": 2},
            [("0003*210", "out"), ("0003*211", "in")],
        ),
        (
            {"source": "0003*210", "destination": "211", "flow": 2, "extension": "0003*211"},
            [("0003*211", "in")],
        ),
        (
            {"source": "0003*210", "destination": "211", "flow": 2, "extension": "210"},
            [("0003*210", "out")],
        ),
    ],
)
def test_leg_belongs_to_the_right_extension(
    fields: dict[str, Any], parts: list[tuple[str, str]]
) -> None:
    about = read_legs(leg(**fields))
    assert [(p.extension, p.direction) for p in (about.legs if about else ())] == parts


def test_ambiguous_short_number_belongs_to_no_extension() -> None:
    record = CallRecord.read(
        {"id": "r", "published": "2026-11-21T09:00:00Z", "phoneCallView": [leg(destination="210")]}
    )
    since = datetime(2026, 11, 21, tzinfo=UTC)
    assert read(record, {"0003*210": since, "0004*210": since}) is None
    assert read(record, {"0003*210": since, "0004*211": since}) is not None


def test_records_before_the_extension_was_set_up_do_not_count() -> None:
    assert read_legs(leg(), published="2026-11-21T08:59:59Z") is None
    assert read_legs(leg(), published=None) is None  # nor do records without a date


@pytest.mark.parametrize(
    ("disposition", "outcome"),
    [
        (0, Outcome.ANSWERED),
        (1, Outcome.BUSY),
        (2, Outcome.FAILED),
        (3, Outcome.MISSED),
        (4, Outcome.MISSED),
        (5, Outcome.FAILED),
    ],
)
def test_disposition_becomes_an_outcome(disposition: int, outcome: Outcome) -> None:
    about = read_legs(leg(disposition=disposition))
    assert about is not None
    assert call_of(events(about, "main", "c1", BEGAN)).outcome == outcome


# Matching


@pytest.mark.parametrize("drop", [Drop.NONE, Drop.HANGUP])
@pytest.mark.parametrize("scenario", Scenario)
def test_record_matches_its_call(scenario: Scenario, drop: Drop) -> None:
    placed_calls = [placed(scenario, seed) for seed in range(20)]
    begins = [BEGAN + timedelta(minutes=n) for n in range(20)]
    records = [about(*each) for each in zip(placed_calls, begins, strict=True)]
    calls = [here(call, began, drop) for call, began in zip(placed_calls, begins, strict=True)]
    expected = {r.id: [c.id] for r, c in zip(records, calls, strict=True)}
    assert found(records[::-1], calls) == expected


def test_call_matches_one_record_only() -> None:
    """A caller redials, and the callbacks of the second call are lost."""
    first = placed("busy")
    again = PlacedCall("again", first.scenario, first.callbacks)
    records = [about(first), about(again, BEGAN + timedelta(seconds=20))]
    records[1] = RecordedCall("r2", "record-r2", *_rest(records[1]))
    matches = match(records, [here(first)], {})
    assert {r: c[0].id for r, c in matches.calls.items()} == {records[0].id: first.id}
    assert [record.id for record in matches.missing] == ["r2"]


def _rest(record: RecordedCall) -> tuple[Any, ...]:
    return record.began, record.ended, record.legs


def test_record_matches_the_nearest_call() -> None:
    call = placed("missed")
    far, near = (here(PlacedCall(id_, call.scenario, call.callbacks), BEGAN + away) for id_, away in
                 [("far", timedelta(seconds=50)), ("near", timedelta(seconds=-5))])  # fmt: skip
    renamed = [_named(far, "far"), _named(near, "near")]
    assert list(found([about(call)], renamed).values()) == [["near"]]


def _named(call: Call, id_: str) -> Call:
    return Call(**{name: getattr(call, name) for name in call.__struct_fields__} | {"id": id_})


@pytest.mark.parametrize(
    ("away", "known"),
    [
        (timedelta(), True),
        (SLACK, True),
        (-SLACK, True),
        (SLACK + timedelta(seconds=61), False),  # the recorded call took a minute
        (SLACK + timedelta(seconds=59), True),
        (-SLACK - timedelta(seconds=1), False),
    ],
)
def test_call_must_begin_during_the_recorded_call(away: timedelta, known: bool) -> None:
    about = read_legs(leg(answered="2026-11-21T09:00:20Z", duration=40, disposition=0))
    assert about is not None
    call = _like(about, started=about.began + away)
    assert bool(found([about], [call])) is known


def _like(about: RecordedCall, **fields: Any) -> Call:
    call = call_of(events(about, "main", "c1", BEGAN))
    return Call(**{name: getattr(call, name) for name in call.__struct_fields__} | fields)


@pytest.mark.parametrize(
    ("source", "number", "known"),
    [
        ("442079460100", "+442079460100", True),
        ("442079460100", "02079460100", True),
        ("442079460100", "+442079460101", False),
        ("", None, True),
        ("anonymous", None, True),
        ("442079460100", None, False),
        ("", "+442079460100", False),
    ],
)
def test_numbers_match_in_any_notation(source: str, number: str, known: bool) -> None:
    about = read_legs(leg(source=source))
    assert about is not None
    like = _like(about)
    caller = type(like.caller)(number=number)
    assert bool(found([about], [_like(about, caller=caller)])) is known


def test_direction_and_extension_must_match() -> None:
    about = read_legs(leg())
    assert about is not None
    assert found([about], [_like(about)])
    assert not found([about], [_like(about, direction="out")])
    elsewhere = read_legs(leg(destination="0003*211"))
    assert elsewhere is not None
    assert not found([about], [_like(elsewhere)])


def test_ids_take_precedence_over_numbers_and_time() -> None:
    about = read_legs(leg())
    assert about is not None
    late = _like(about, started=about.began + timedelta(minutes=9), id="late")
    near = _like(about, id="near")
    by_api_id = match([about], [near, late], {"late": "r1", "near": "another"})
    assert [call.id for call in by_api_id.calls["r1"]] == ["late"]
    named = read_legs(leg(), callId="late")
    assert named is not None
    by_call_id = match([named], [near, late], {})
    assert [call.id for call in by_call_id.calls["r1"]] == ["late"]
    assert (named.call_id, about.call_id) == ("late", "record-r1")


def test_recovered_call_matches_its_record() -> None:
    about = read_legs(leg())
    assert about is not None
    recovered = _like(about, id="record-r1", started=about.began - timedelta(hours=1))
    assert match([about], [recovered], {}).missing == ()


# Clocks


def test_different_clocks_raise_a_doubt() -> None:
    """The zone of the PBX is wrong by an hour."""
    placed_calls = [placed("answered", seed) for seed in range(ENOUGH)]
    calls = [here(call) for call in placed_calls]
    late = [about(call, BEGAN + timedelta(hours=1)) for call in placed_calls]
    doubt = match(late, calls, {}).doubt
    assert doubt is not None
    assert "check its `zone`" in doubt
    api_ids = {call.id: record.id for call, record in zip(calls, late, strict=True)}
    matches = match(late, calls, api_ids)
    assert matches.missing == ()
    assert matches.doubt is not None
    assert "+60 minutes" in matches.doubt
    assert match(late[1:], calls[1:], {}).doubt is None  # four may be an accident
    right = [about(call) for call in placed_calls]
    assert match(right, calls, {}).doubt is None
    assert match(right, calls[:1], {}).doubt is None  # the other calls are missing


def test_outage_of_an_hour_raises_no_doubt() -> None:
    """Callbacks of known callers were lost for an hour, which records are there to repair."""
    lost = [about(placed("answered", seed)) for seed in range(ENOUGH)]
    assert match(lost, [], {}).doubt is None
    callbacks_again = BEGAN + timedelta(hours=1)
    calls = [here(placed("answered", seed), callbacks_again) for seed in range(ENOUGH)]
    assert match(lost, calls, {}).doubt is None
