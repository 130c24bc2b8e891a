"""Recorded calls: `scenarios/NAME.toml` has the callbacks of one call and the expected result.

A callback is a line: seconds since the call began, extension, event type, and the query string
that the PBX sends. A leg is also a line: extension, direction, the seconds at which it rang, was
answered and ended (`-` for a moment that did not occur or is unknown), its status, and its id.

`scenarios/*.stories` has more calls in a shorter form: see `stories`.

Each call is also played with callbacks that are reordered, repeated or missing.
"""

import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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
from tests.offhook.calls.folding import BEGAN, calls, play, verdict
from tests.offhook.calls.stories import Story, is_incomplete, stories, verdicts

_FOLDER = Path(__file__).parent / "scenarios"
NAMES = sorted(file.stem for file in _FOLDER.glob("*.toml"))
STORIES = {story.name: story for story in stories(_FOLDER)}


@dataclass(frozen=True)
class Scenario:
    """A call: the callbacks, the kinds of its extensions, and the expected events and call."""

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
        # Extensions not in `kinds` are phones; on Telphin their kind is unknown.
        kinds = {each.extension: Kind.PHONE for each in callbacks} | kinds
    return Scenario(callbacks, kinds, told.get("region", "GB"), told["events"], told["call"])


def callback(line: str, *, telphin: bool) -> CallEvent:
    at, extension, type_, query = line.split(" ")
    parameters = dict(parse_qsl(query))
    received = BEGAN + timedelta(seconds=float(at))
    if telphin:
        received += timedelta(seconds=0.25)  # later than it occurred, which it says itself
    read_event = dialect("telphin" if telphin else type_)
    made = read_event(
        pbx="main", extension=extension, type=type_, parameters=parameters, received=received
    )
    assert made.type == type_
    return made


def plain(call: Call) -> dict[str, Any]:
    """The call in the form of a scenario."""
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


@contextmanager
def case(name: str, **what: object) -> Iterator[None]:
    """Say which scenario fails, and with what."""
    try:
        yield
    except Exception as error:
        error.add_note(f"{name}: {what}")
        raise


_ANSWERS = (EventType.ANSWER_IN, EventType.ANSWER_OUT)
Scenarios = dict[str, Scenario | Story]


@pytest.fixture(scope="module")
def scenarios() -> Scenarios:
    return STORIES | {name: load(name) for name in NAMES}


def test_there_are_enough_scenarios() -> None:
    assert len(NAMES) >= 50
    assert len(STORIES) >= 60


@pytest.mark.parametrize("name", STORIES)
def test_a_story_has_the_right_verdict(name: str) -> None:
    story = STORIES[name]
    assert verdicts(story.play(story.callbacks)) == story.verdicts


@pytest.mark.parametrize("name", NAMES)
def test_a_call_is_described_as_it_happened(name: str) -> None:
    scenario = load(name)
    told = scenario.play(scenario.callbacks)
    assert plain(verdict(told)) == expected(scenario)
    assert [each.type for each in told] == scenario.events


def test_an_event_that_is_read_twice_changes_nothing(scenarios: Scenarios) -> None:
    for name, scenario in scenarios.items():
        whole = scenario.play(scenario.callbacks)
        if len(calls(whole)) > 1:
            continue  # a repeat of a callback of an earlier call counts to the latest one
        at_once = [each for each in scenario.callbacks for _ in range(2)]
        last = max(each.received for each in scenario.callbacks)
        for later in (timedelta(seconds=1), timedelta(minutes=1)):
            with case(name, later=later):
                # Twice at once, and all of them again, after a minute when the call is over.
                again = [replace(each, occurred=each.occurred or each.received) for each in at_once]
                again += [replace(each, received=last + later) for each in again]
                told = scenario.play(again)
                assert plain(verdict(told)) == plain(verdict(whole))
                assert verdicts(told) == verdicts(whole)
                assert [each.type for each in told] == [each.type for each in whole]


def test_reordered_callbacks_make_the_same_call(scenarios: Scenarios) -> None:
    for name, scenario in scenarios.items():
        whole = scenario.play(scenario.callbacks)
        for seed in range(15):
            with case(name, seed=seed):
                rng = Random(f"{name} {seed}")
                told = scenario.play(
                    [_later(each, rng.uniform(0, 1)) for each in scenario.callbacks]
                )
                assert sorted(each.type for each in told) == sorted(each.type for each in whole)
                for call, truth in zip(_calls(told), _calls(whole), strict=True):
                    assert_alike(call, truth)


def test_a_call_with_a_repeated_callback_is_right_or_marked(scenarios: Scenarios) -> None:
    # The receiver drops a repeat unless it comes after the duplicate window.
    for name, scenario in scenarios.items():
        whole = verdict(scenario.play(scenario.callbacks))
        for each in scenario.callbacks:
            with case(name, repeated=each.type, extension=each.extension):
                repeated = [*scenario.callbacks, replace(_later(each, 0.2), id=new_event_id())]
                call = verdict(scenario.play(repeated))
                assert call.outcome == whole.outcome
                assert call.answered_by == whole.answered_by
                if call.complete and each in _with_others(scenario.callbacks):
                    assert_alike(call, whole)


@pytest.mark.parametrize("reordered", [False, True])
def test_a_call_with_a_missing_callback_is_right_or_marked(
    scenarios: Scenarios, *, reordered: bool
) -> None:
    for name, scenario in scenarios.items():
        rng = Random(name)
        whole = _calls(scenario.play(scenario.callbacks))
        for lost in _with_others(scenario.callbacks):
            rest = [each for each in scenario.callbacks if each is not lost]
            if reordered:
                rest = [_later(each, rng.uniform(0, 1)) for each in rest]
            with case(name, missing=lost.type, extension=lost.extension):
                for call in _calls(scenario.play(rest)):
                    if not is_incomplete(call):
                        assert_alike(call, _nearest(call, whole))
                # Two callbacks report an answer: the answer itself, and the hangup.
                witnesses = any(each.type in _ANSWERS for each in scenario.callbacks)
                witnesses &= "unknown-status" not in name and "conference" not in name
                if len(whole) == 1 and whole[0].complete and witnesses:
                    answered = whole[0].outcome is Outcome.ANSWERED
                    assert answered <= (call.outcome is Outcome.ANSWERED)


@pytest.mark.parametrize("reordered", [False, True])
def test_no_call_is_falsely_told_as_missed_because_a_callback_is_missing(
    scenarios: Scenarios, *, reordered: bool
) -> None:
    for name, scenario in scenarios.items():
        rng = Random(name)
        missed = _missed(scenario.play(scenario.callbacks))
        for lost in scenario.callbacks:
            rest = [each for each in scenario.callbacks if each is not lost]
            if reordered:
                rest = [_later(each, rng.uniform(0, 1)) for each in rest]
            # Where a callback is missing already, this would be the second one.
            if rest and not name.startswith("lost-"):
                with case(name, missing=lost.type, extension=lost.extension):
                    assert not _missed(scenario.play(rest)) - missed


def test_a_call_with_a_missing_hangup_is_marked(scenarios: Scenarios) -> None:
    for name, scenario in scenarios.items():
        for lost in _with_others(scenario.callbacks):
            if lost.type is EventType.HANGUP:
                with case(name, extension=lost.extension):
                    rest = [each for each in scenario.callbacks if each is not lost]
                    assert any(Gap.HANGUP in call.gaps for call in _calls(scenario.play(rest)))


def _calls(told: list[CallEvent]) -> list[Call]:
    """The calls of a CallID, each as it is known at the end."""
    return [verdict(events) for events in calls(told).values()]


def _missed(told: list[CallEvent]) -> Counter[str | None]:
    """How many calls of each caller were told as missed."""
    return Counter(each.caller.number for each in told if each.type is EventType.MISSED_CALL)


def _nearest(call: Call, whole: list[Call]) -> Call:
    return min(whole, key=lambda each: abs(each.started - call.started))


def _with_others(callbacks: list[CallEvent]) -> list[CallEvent]:
    """The callbacks that are not the only one of their leg. Without that one the leg is unknown."""
    legs = Counter((each.extension, each.direction, each.leg) for each in callbacks)
    return [each for each in callbacks if legs[each.extension, each.direction, each.leg] > 1]


def _later(event: CallEvent, seconds: float) -> CallEvent:
    return replace(event, received=event.received + timedelta(seconds=seconds))


def assert_alike(call: Call, other: Call) -> None:
    """The calls are equal, with moments within a second.

    The moment when a queue or an IVR answers by itself does not matter.
    """
    for field in ("direction", "outcome", "answered_by", "gaps", "closed_by", "recording"):
        assert getattr(call, field) == getattr(other, field), field
    assert call.caller == other.caller
    began = other.legs[0].rang
    first = {leg.extension for leg in other.legs if not leg.rang or _close(leg.rang, began)}
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
    plays = leg.kind in (Kind.QUEUE, Kind.IVR, None)
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
