"""Recorded calls: `scenarios/NAME.toml` holds the callbacks of one, and what is to be told of it.

A callback is a line: seconds since the call began, extension, event type, and the query string
that the PBX sends. A leg is a line, too: extension, direction, the seconds at which it rang, was
answered and ended (`-` for what did not happen or was not told), its status, and its id, if any.

Each call is also played as it may really come: overtaken by one another, repeated, one lost.
"""

import tomllib
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qsl

import pytest
from msgspec.structs import replace

from offhook.call import Call, Gap, Kind, Leg, Outcome
from offhook.dialects import dialect
from offhook.event import CallEvent, EventType, new_event_id
from tests.offhook.calls.folding import BEGAN, play, verdict

_FOLDER = Path(__file__).parent / "scenarios"
NAMES = sorted(file.stem for file in _FOLDER.glob("*.toml"))


@dataclass(frozen=True)
class Scenario:
    """A call: what the PBX sends, what its extensions are, and what is to be told."""

    callbacks: list[CallEvent]
    kinds: dict[str, Kind]
    region: str
    events: list[str]
    call: dict[str, Any]

    def play(self, callbacks: list[CallEvent]) -> list[CallEvent]:
        return play(callbacks, self.kinds, self.region)


def load(name: str) -> Scenario:
    told = tomllib.loads((_FOLDER / f"{name}.toml").read_text())
    kinds = {extension: Kind(kind) for extension, kind in told.get("kinds", {}).items()}
    lines = told["callbacks"].strip().splitlines()
    telphin = told.get("dialect") == "telphin"
    callbacks = [callback(line, telphin=telphin) for line in lines]
    if not telphin:
        # Everything that no table names is a phone; on Telphin nobody may have said so.
        kinds = {each.extension: Kind.PHONE for each in callbacks} | kinds
    return Scenario(callbacks, kinds, told.get("region", "GB"), told["events"], told["call"])


def callback(line: str, *, telphin: bool) -> CallEvent:
    at, extension, type_, query = line.split(" ")
    parameters = dict(parse_qsl(query))
    received = BEGAN + timedelta(seconds=float(at))
    if telphin:
        received += timedelta(seconds=0.25)  # it says itself when it occurred
    read_event = dialect("telphin" if telphin else type_)
    made = read_event(
        pbx="main", extension=extension, type=type_, parameters=parameters, received=received
    )
    assert made.type == type_
    return made


def plain(call: Call) -> dict[str, Any]:
    """A call as a scenario writes it."""
    told: dict[str, Any] = {
        "direction": call.direction,
        "caller": {name: value for name, value in _fields(call.caller) if value},
        "called": {name: value for name, value in _fields(call.called) if value},
        "outcome": call.outcome,
        "started": _seconds(call.started),
        "answered": _seconds(call.answered),
        "ended": _seconds(call.ended),
        "answered_by": call.answered_by,
        "ring_seconds": call.ring_seconds,
        "talk_seconds": call.talk_seconds,
        "gaps": list(call.gaps),
        "closed_by": call.closed_by,
        "recording": call.recording,
        "legs": [_leg(leg) for leg in call.legs],
    }
    return {name: value for name, value in told.items() if value is not None}


def expected(scenario: Scenario) -> dict[str, Any]:
    return {"started": 0.0, "gaps": [], "closed_by": "hangup"} | scenario.call


def _fields(party: Any) -> list[tuple[str, Any]]:
    return [(name, getattr(party, name)) for name in party.__struct_fields__]


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else (moment - BEGAN).total_seconds()


def _leg(leg: Leg) -> str:
    times = (_seconds(at) for at in (leg.rang, leg.answered, leg.ended))
    words = [leg.extension, leg.direction, *(_short(at) for at in times), leg.status or "-"]
    return " ".join([*map(str, words), *([leg.id] if leg.id else [])])


def _short(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:g}"


every = pytest.mark.parametrize("name", NAMES)


def test_there_are_enough_of_them() -> None:
    assert len(NAMES) >= 50


@every
def test_a_call_is_told_as_it_went(name: str) -> None:
    scenario = load(name)
    told = scenario.play(scenario.callbacks)
    assert plain(verdict(told)) == expected(scenario)
    assert [each.type for each in told] == scenario.events


@every
def test_an_event_that_is_read_again_changes_nothing(name: str) -> None:
    scenario = load(name)
    at_once = [each for each in scenario.callbacks for _ in range(2)]
    last = max(each.received for each in scenario.callbacks)
    for later in (timedelta(seconds=1), timedelta(minutes=1)):
        # The last one twice in time, all of them when the call is over.
        again = [replace(each, occurred=each.occurred or each.received) for each in at_once]
        again += [replace(each, received=last + later) for each in again]
        told = scenario.play(again)
        assert plain(verdict(told)) == expected(scenario)
        assert [each.type for each in told] == scenario.events


@every
@pytest.mark.parametrize("seed", range(25))
def test_callbacks_may_overtake_each_other(name: str, seed: int) -> None:
    scenario = load(name)
    rng = Random(f"{name} {seed}")
    late = [_later(each, rng.uniform(0, 1)) for each in scenario.callbacks]
    told = scenario.play(late)
    assert [each.type for each in told] == scenario.events
    assert_alike(verdict(told), verdict(scenario.play(scenario.callbacks)))


@every
def test_a_callback_that_is_repeated_leaves_the_call_right_or_marked(name: str) -> None:
    # The receiver drops it, unless the duplicate window is shorter than that.
    scenario = load(name)
    whole = verdict(scenario.play(scenario.callbacks))
    for each in scenario.callbacks:
        repeated = [*scenario.callbacks, replace(_later(each, 0.2), id=new_event_id())]
        call = verdict(scenario.play(repeated))
        assert call.outcome == whole.outcome
        assert call.answered_by == whole.answered_by
        if call.complete and each in _with_others(scenario.callbacks):
            assert_alike(call, whole)


@every
@pytest.mark.parametrize("shuffled", [False, True])
def test_without_a_callback_a_call_is_right_or_marked(name: str, *, shuffled: bool) -> None:
    scenario = load(name)
    rng = Random(name)
    whole = verdict(scenario.play(scenario.callbacks))
    for lost in _with_others(scenario.callbacks):
        rest = [each for each in scenario.callbacks if each is not lost]
        if shuffled:
            rest = [_later(each, rng.uniform(0, 1)) for each in rest]
        call = verdict(scenario.play(rest))
        if call.complete:
            assert_alike(call, whole)
        # That somebody answered has two witnesses: the answer, and a hangup that says so.
        witnesses = "unknown-status" not in name and "conference" not in name
        if whole.complete and whole.outcome is Outcome.ANSWERED and witnesses:
            assert call.outcome is Outcome.ANSWERED


@every
def test_without_a_hangup_a_call_is_marked(name: str) -> None:
    scenario = load(name)
    for lost in _with_others(scenario.callbacks):
        if lost.type is EventType.HANGUP:
            rest = [each for each in scenario.callbacks if each is not lost]
            assert Gap.HANGUP in verdict(scenario.play(rest)).gaps


def _with_others(callbacks: list[CallEvent]) -> list[CallEvent]:
    """Those that are not all that is told of their leg: if one is lost, who could know of it?"""
    legs = Counter((each.extension, each.direction, each.leg) for each in callbacks)
    return [each for each in callbacks if legs[each.extension, each.direction, each.leg] > 1]


def _later(event: CallEvent, seconds: float) -> CallEvent:
    return replace(event, received=event.received + timedelta(seconds=seconds))


def assert_alike(call: Call, other: Call) -> None:
    """Do they tell the same, moments within a second?

    Except when a queue or an IVR began to play its music, which nobody asks.
    """
    for field in ("direction", "outcome", "answered_by", "gaps", "closed_by", "recording"):
        assert getattr(call, field) == getattr(other, field), field
    assert call.caller == other.caller
    first = {leg.extension for leg in other.legs if _close(leg.rang, other.legs[0].rang)}
    assert call.called.extension in {other.called.extension, *first}
    assert replace(call.called, extension=None) == replace(other.called, extension=None)
    for field in ("started", "answered", "ended"):
        assert _close(getattr(call, field), getattr(other, field)), field
    assert (call.ring_seconds is None) is (other.ring_seconds is None)
    assert (call.ring_seconds or 0) == pytest.approx(other.ring_seconds or 0, abs=1.001)
    assert (call.talk_seconds is None) is (other.talk_seconds is None)
    spans = sum(leg.answered is not None for leg in other.legs)
    assert (call.talk_seconds or 0) == pytest.approx(other.talk_seconds or 0, abs=1.001 * spans)
    left = list(other.legs)
    for leg in call.legs:
        left.remove(next(each for each in left if _alike(leg, each)))
    assert not left


def _alike(leg: Leg, other: Leg) -> bool:
    plays = leg.kind in (Kind.QUEUE, Kind.IVR)
    return (
        (leg.extension, leg.direction, leg.status, leg.id)
        == (other.extension, other.direction, other.status, other.id)
        and _close(leg.rang, other.rang)
        and (plays or _close(leg.answered, other.answered))
        and _close(leg.ended, other.ended)
    )


def _close(moment: datetime | None, other: datetime | None) -> bool:
    if moment is None or other is None:
        return moment is other
    return abs(moment - other) <= timedelta(seconds=1.001)
