"""The fold, case by case. Whole calls are in `test_fold_scenarios`."""

import sys
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from offhook.call import Call, Gap, Kind, Leg, Outcome, Party
from offhook.calls import CallState, fold, from_state, summarize, tell, to_state
from offhook.calls.closing import over
from offhook.calls.facts import MOST
from offhook.event import CallEvent, EventType
from offhook.phone_number import e164
from offhook.testing import sample_call, sample_event
from tests.offhook.calls.folding import BEGAN, SETTLE, TIMEOUT, Line, verdict

PHONE, SECOND, QUEUE = "0003*210", "0003*211", "0003*400"
KINDS = {PHONE: Kind.PHONE, SECOND: Kind.PHONE, QUEUE: Kind.QUEUE}


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def said(type_: str, seconds: float, extension: str = PHONE, **fields: Any) -> CallEvent:
    """A callback of an incoming call."""
    event = sample_event(type_, extension=extension, received=at(seconds), **fields)
    return replace(event, call_id=sample_call().id)


def hangup(seconds: float, status: str, extension: str = PHONE, **fields: Any) -> CallEvent:
    return said("hangup", seconds, extension, status=status, **fields)


def record(
    began: float, extension: str = PHONE, status: str = "ANSWER", **moments: float
) -> CallEvent:
    """A leg according to the PBX's records."""
    parameters = {name: at(moment).isoformat() for name, moment in moments.items()}
    event = said("dial-in", began + 3600, extension, status=status, parameters=parameters)
    return replace(event, type=EventType.CALL_RECORD, occurred=at(began))


def taken(*events: CallEvent) -> Line:
    line = Line(KINDS)
    for event in events:
        line.take(event)
    return line


def types(line: Line) -> list[str]:
    return [event.type.value for event in line.told]


def legs(call: Call) -> list[tuple[Any, ...]]:
    def seconds(moment: datetime | None) -> float | None:
        return None if moment is None else (moment - BEGAN).total_seconds()

    return [
        (leg.extension, seconds(leg.rang), seconds(leg.answered), seconds(leg.ended), leg.status)
        for leg in call.legs
    ]


# When events about a call are made


def test_events_are_made_while_the_call_goes_on() -> None:
    line = taken(said("dial-in", 0))
    assert types(line) == ["call-started"]
    started = verdict(line.told)
    assert (started.started, started.ended, started.outcome) == (at(0), None, None)
    assert (started.gaps, started.complete, started.ring_seconds) == ((), True, 0)
    line.take(said("answer-in", 8))
    assert types(line) == ["call-started", "call-answered"]
    answered = verdict(line.told)
    assert (answered.answered, answered.answered_by, answered.ring_seconds) == (at(8), PHONE, 8)
    assert (answered.outcome, answered.ended, answered.talk_seconds) == (None, None, 0)
    line.take(hangup(53, "ANSWER"))
    assert len(line.told) == 2
    line.end()
    assert types(line)[2:] == ["call-ended"]
    assert line.told[-1].received == at(53) + SETTLE


def test_an_event_about_a_call_equals_the_sample() -> None:
    line = taken(said("dial-in", 0), said("answer-in", 8), hangup(53, "ANSWER"))
    line.end()
    sample = sample_call()
    shift = BEGAN - sample.started
    moved = {name: getattr(sample, name) + shift for name in ("started", "answered", "ended")}
    leg = Leg(
        extension=PHONE,
        kind=Kind.PHONE,
        direction="in",
        rang=at(0),
        answered=at(8),
        ended=at(53),
        status="ANSWER",
    )
    assert verdict(line.told) == replace(sample, **moved, legs=(leg,))
    event, like = line.told[-1], sample_event("call-ended", summary=verdict(line.told))
    assert event == replace(like, id=event.id, received=event.received)


def test_a_queue_that_answers_does_not_count_as_a_person() -> None:
    line = taken(said("dial-in", 0, QUEUE), said("answer-in", 0.1, QUEUE))
    assert types(line) == ["call-started"]
    line.take(said("dial-in", 5))
    line.take(said("answer-in", 9))
    assert types(line) == ["call-started", "call-answered"]
    assert line.told[-1].extension == PHONE


def test_an_extension_of_unknown_kind_counts_as_a_phone() -> None:
    line = Line({})
    for event in (said("dial-in", 0, QUEUE), said("answer-in", 0.1, QUEUE)):
        line.take(event)
    assert types(line) == ["call-started", "call-answered"]


def test_a_queue_that_answers_a_colleague_does_not_count_as_a_person() -> None:
    inside: dict[str, Any] = {
        "caller": Party(extension=PHONE),
        "called": Party(number="400", extension=QUEUE),
    }
    line = taken(
        said("dial-out", 0, direction="out", **inside),
        said("answer-out", 0.1, direction="out", **inside),
        said("dial-in", 0.2, QUEUE, **inside),
    )
    assert types(line) == ["call-started"]


@pytest.mark.parametrize("number", ["400", QUEUE])
def test_a_caller_of_a_queue_is_recognized_by_the_queue_s_number(number: str) -> None:
    out: dict[str, Any] = {"caller": Party(extension=PHONE), "called": Party(number=number)}
    in_ = {"caller": Party(extension=PHONE), "called": Party(extension=QUEUE)}
    line = taken(
        said("dial-out", 0, direction="out", **out),
        said("dial-in", 0.1, QUEUE, **in_),
        said("answer-out", 0.2, direction="out", **out),
        hangup(30, "ANSWER", direction="out", **out),
        hangup(30.1, "ANSWER", QUEUE, **in_),
    )
    line.end()
    call = verdict(line.told)
    assert (call.direction, call.outcome) == ("internal", Outcome.MISSED)
    assert (call.caller.extension, call.called.extension) == (PHONE, QUEUE)
    assert types(line) == ["call-started", "call-ended", "missed-call"]


def test_an_answer_known_from_a_hangup_alone_is_reported_before_the_end() -> None:
    line = taken(said("dial-in", 0), hangup(53, "ANSWER"))
    assert types(line) == ["call-started"]
    line.end()
    assert types(line) == ["call-started", "call-answered", "call-ended"]
    assert line.told[1].summary is not None
    assert line.told[1].summary.outcome is None


def test_the_settle_window_begins_with_the_last_hangup() -> None:
    state = fold(fold(None, said("dial-in", 0)), said("dial-in", 0, SECOND))
    assert not over(state)
    state = fold(state, hangup(20, "NOANSWER"))
    assert not over(state)
    assert over(fold(state, hangup(20.1, "NOANSWER", SECOND)))


def test_a_call_without_an_end_is_closed_by_silence() -> None:
    line = taken(said("dial-in", 0))
    line.end()
    assert line.told[-1].received == at(0) + TIMEOUT
    call = verdict(line.told)
    assert (call.closed_by, call.gaps, call.ring_seconds) == ("silence", (Gap.HANGUP,), None)


def test_a_hangup_after_the_silence_corrects_the_call() -> None:
    line = taken(said("dial-in", 0), said("answer-in", 8), hangup(20000, "ANSWER"))
    line.end()
    assert types(line) == ["call-started", "call-answered", "call-ended", "call-corrected"]
    call = verdict(line.told)
    assert (call.closed_by, call.gaps) == ("hangup", (Gap.LATE,))
    assert call.talk_seconds == 19992


def test_a_transfer_whose_second_dial_is_missing_is_corrected() -> None:
    line = taken(said("dial-in", 0), said("answer-in", 6), hangup(30, "ANSWER"))
    line.take(said("answer-in", 36, SECOND))
    assert types(line)[-1] == "call-ended"
    assert verdict(line.told).talk_seconds == 24
    line.take(hangup(96, "ANSWER", SECOND))
    line.end()
    assert types(line)[-2:] == ["call-ended", "call-corrected"]
    call = verdict(line.told)
    assert (call.talk_seconds, call.gaps) == (84, (Gap.DIAL, Gap.LATE))


def test_each_correction_has_a_different_id() -> None:
    line = taken(
        said("dial-in", 0),
        hangup(20, "NOANSWER"),
        said("answer-in", 130, SECOND),
        hangup(140, "ANSWER", SECOND),
        said("dial-in", 160),
        hangup(170, "NOANSWER"),
    )
    line.end()
    assert types(line)[-2:] == ["call-corrected", "call-corrected"]
    assert len({event.id for event in line.told}) == len(line.told)


def test_a_late_repeat_corrects_nothing() -> None:
    hung_up = hangup(53, "ANSWER")
    line = taken(said("dial-in", 0), said("answer-in", 8), hung_up)
    line.take(replace(hung_up, received=at(600), occurred=at(53)))
    line.end()
    assert types(line).count("call-ended") == 1
    assert "call-corrected" not in types(line)


def test_a_region_that_is_set_later_is_no_correction() -> None:
    caller = Party(number="02079460100")
    state = fold(None, said("dial-in", 0, caller=caller))
    state, _ = tell(fold(state, hangup(20, "NOANSWER")), None, at(23), "hangup")
    assert summarize(state, None) != summarize(state, "GB")
    assert tell(state, "GB", at(30), "hangup") == (state, [])


def test_only_a_callback_or_a_record_is_folded() -> None:
    with pytest.raises(ValueError, match="call-ended is neither a callback nor a call record"):
        fold(None, sample_event("call-ended"))


# Legs with missing callbacks


@pytest.mark.parametrize("legs_have_ids", [False, True])
def test_events_beyond_the_most_of_a_call_are_counted_and_marked(*, legs_have_ids: bool) -> None:
    state, sizes = None, []
    for n in range(3000):
        leg = f"leg-{n}" if legs_have_ids else None
        state = fold(state, replace(said("dial-in", n), leg=leg), Kind.PHONE)
        sizes.append(len(to_state(state)))
    assert state is not None
    assert sizes[MOST - 1] - 1 <= sizes[-1] - len("2600") <= sizes[MOST - 1] + 1
    assert fold(state, said("dial-in", 0, leg="leg-0" if legs_have_ids else None)) is state
    call = summarize(replace(state, closed="silence"), None)
    assert call.caller.number
    assert (call.left_out, len(call.legs)) == (3000 - MOST, MOST)
    assert Gap.EVENTS in call.gaps
    _, told = tell(state, None, at(9999), "silence")
    assert [event.type for event in told] == ["call-started", "call-ended"]
    # One more event that is left out is no news.
    closed, _ = tell(state, None, at(9999), "silence")
    assert tell(fold(closed, said("dial-in", 5000)), None, at(9999), "silence")[1] == []


@pytest.mark.parametrize("shape", ["one phone", "no dials", "many phones", "odd", "together"])
def test_a_thousand_callbacks_with_one_call_id_take_linear_time(shape: str) -> None:
    """Counts steps of the interpreter: each of the bounded events costs the same, whatever came."""
    rng = Random(shape)

    def event(n: int) -> CallEvent:
        type_ = ("dial-in", "answer-in", "hangup")[n % 3]
        when, extension = float(n), PHONE
        if shape == "no dials":
            type_ = ("answer-in", "hangup")[n % 2]
        if shape == "many phones":
            extension = f"0003*{n // 3}"
        if shape == "odd":
            type_ = rng.choice(("dial-in", "dial-in", "answer-in", "hangup"))
        if shape == "together":
            when, extension = 0.001 * n, f"0003*{n // 3}"
        return said(type_, when, extension, status="ANSWER")

    def steps(many: int) -> int:
        state = None
        for n in range(many):
            state = fold(state, event(n), Kind.PHONE)
        assert state is not None
        counted = 0

        def count(*_: Any) -> Any:
            nonlocal counted
            counted += 1
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            tell(state, None, at(0), "silence")
        finally:
            sys.settrace(before)
        return counted

    small, large = steps(MOST // 4), steps(MOST)
    assert large < 6 * small
    assert steps(1000) < 2 * large


def test_an_agent_who_is_called_again_has_hung_up_before() -> None:
    line = taken(said("dial-in", 0), said("dial-in", 20), hangup(35, "NOANSWER"))
    line.end()
    call = verdict(line.told)
    assert call.closed_by == "hangup"
    assert legs(call) == [
        (PHONE, 0, None, None, None),
        (PHONE, 20, None, 35, "NOANSWER"),
    ]
    assert (call.gaps, call.ring_seconds) == ((Gap.HANGUP,), 35)


def test_an_answered_call_goes_on_while_its_extension_calls_another() -> None:
    out: dict[str, Any] = {"caller": Party(extension=PHONE), "direction": "out"}
    state = fold(None, said("dial-out", 0, **out))
    state = fold(state, said("answer-out", 5, **out))
    state = fold(fold(state, said("dial-out", 20, **out)), hangup(40, "NOANSWER", **out))
    assert not over(state)
    assert over(fold(state, hangup(90, "ANSWER", **out)))


def test_a_hangup_overtaken_by_the_next_dial_ends_the_earlier_leg() -> None:
    state = fold(fold(None, said("dial-in", 0)), said("dial-in", 15.1))
    state = fold(state, hangup(15.5, "NOANSWER"))
    assert not over(state)
    assert legs(summarize(state, None)) == [
        (PHONE, 0, None, 15.5, "NOANSWER"),
        (PHONE, 15.1, None, None, None),
    ]


def test_a_hangup_ends_the_leg_dialled_before_it() -> None:
    state = fold(fold(None, said("dial-in", 0)), said("dial-in", 20))
    state = fold(fold(state, hangup(35, "NOANSWER")), said("dial-in", 35.3))
    assert not over(state)
    assert legs(summarize(state, None)) == [
        (PHONE, 0, None, None, None),
        (PHONE, 20, None, 35, "NOANSWER"),
        (PHONE, 35.3, None, None, None),
    ]


def test_a_late_answer_belongs_to_the_leg_without_one() -> None:
    line = taken(said("dial-in", 0), hangup(19.5, "ANSWER"), said("dial-in", 20))
    line.take(said("answer-in", 20.2))
    assert line.state is not None
    assert legs(summarize(line.state, None)) == [
        (PHONE, 0, 19.5, 19.5, "ANSWER"),
        (PHONE, 20, None, None, None),
    ]


def test_an_answer_after_an_unanswered_hangup_is_another_leg() -> None:
    line = taken(said("dial-in", 0), hangup(15, "NOANSWER"), said("answer-in", 16))
    assert line.state is not None
    assert legs(summarize(line.state, None)) == [
        (PHONE, 0, None, 15, "NOANSWER"),
        (PHONE, None, 16, None, None),
    ]


def test_a_hangup_without_a_dial_is_another_leg() -> None:
    line = taken(
        said("dial-in", 0), hangup(15, "NOANSWER"), said("answer-in", 18), hangup(60, "ANSWER")
    )
    line.end()
    call = verdict(line.told)
    assert legs(call) == [(PHONE, 0, None, 15, "NOANSWER"), (PHONE, None, 18, 60, "ANSWER")]
    assert Gap.DIAL in call.gaps


def test_the_dial_of_the_first_leg_may_be_missing() -> None:
    line = taken(hangup(15, "NOANSWER"), said("dial-in", 15.5), hangup(30, "NOANSWER"))
    line.end()
    call = verdict(line.told)
    assert legs(call) == [(PHONE, None, None, 15, "NOANSWER"), (PHONE, 15.5, None, 30, "NOANSWER")]
    assert (call.gaps, call.ring_seconds) == ((Gap.DIAL,), None)


def test_an_answer_belongs_to_the_leg_with_an_answered_hangup() -> None:
    line = taken(said("dial-in", 0), said("answer-in", 16), hangup(15, "NOANSWER"))
    line.take(said("dial-in", 15.5))
    line.take(hangup(60, "ANSWER"))
    line.end()
    assert legs(verdict(line.told)) == [
        (PHONE, 0, None, 15, "NOANSWER"),
        (PHONE, 15.5, 16, 60, "ANSWER"),
    ]


def test_moments_of_a_leg_are_in_order_even_if_its_callbacks_were_not() -> None:
    line = taken(hangup(0.1, "BUSY"), said("dial-in", 0.3))
    line.end()
    assert legs(verdict(line.told)) == [(PHONE, 0.1, None, 0.1, "BUSY")]
    assert verdict(line.told).complete


@pytest.mark.parametrize("all_events", [False, True])
def test_a_lone_hangup_that_names_the_caller_counts_unless_more_would_have_come(
    *, all_events: bool
) -> None:
    state = fold(fold(None, said("dial-in", 0), Kind.PHONE), hangup(7, "NOANSWER"))
    lone = hangup(47, "ANSWER", SECOND)
    state = fold(state, lone, Kind.PHONE, all_events=all_events)
    call = summarize(replace(state, closed="hangup"), None)
    assert call.outcome is (Outcome.MISSED if all_events else Outcome.ANSWERED)
    assert call.answered_by == (None if all_events else SECOND)
    assert Gap.DIAL in call.gaps
    assert len(call.legs) == 2


def test_a_hangup_without_a_direction_belongs_to_the_caller() -> None:
    out: dict[str, Any] = {
        "caller": Party(extension=PHONE),
        "called": Party(number="+442079460999"),
    }
    line = taken(said("dial-out", 0, direction="out", **out))
    line.take(hangup(5, "BUSY", direction=None, **out))
    line.end()
    assert (verdict(line.told).closed_by, len(verdict(line.told).legs)) == ("hangup", 1)


def test_repeated_callbacks_with_the_same_leg_id_are_one_leg() -> None:
    line = taken(said("dial-in", 0, leg="a"), said("dial-in", 6, leg="a"))
    line.take(hangup(20, "NOANSWER", leg="a"))
    line.take(hangup(20.5, "NOANSWER", leg="a"))
    line.end()
    assert legs(verdict(line.told)) == [(PHONE, 0, None, 20, "NOANSWER")]
    assert verdict(line.told).complete


# The PBX's own records


def test_a_record_closes_a_call_without_a_hangup() -> None:
    line = taken(said("dial-in", 0), said("answer-in", 8), record(0, answered=8, ended=53))
    line.end()
    call = verdict(line.told)
    assert types(line) == ["call-started", "call-answered", "call-ended"]
    assert (call.closed_by, call.gaps, call.talk_seconds) == ("records", (), 45)
    assert (call.outcome, call.recovered) == (Outcome.ANSWERED, False)


def test_a_call_known_from_a_record_alone_is_recovered() -> None:
    line = taken(record(0, status="NOANSWER", ended=20))
    line.end()
    call = verdict(line.told)
    assert types(line) == ["call-started", "call-ended", "missed-call"]
    assert (call.recovered, call.closed_by, call.gaps) == (True, "records", ())
    assert (call.outcome, call.ring_seconds, call.started) == (Outcome.MISSED, 20, at(0))


def test_a_record_without_news_changes_nothing() -> None:
    line = taken(said("dial-in", 0), said("answer-in", 8), hangup(53, "ANSWER"))
    line.take(record(-0.4, answered=8.2, ended=53.4))
    line.end()
    assert types(line) == ["call-started", "call-answered", "call-ended"]


def test_a_record_completes_the_leg_that_it_is_most_like() -> None:
    line = taken(said("dial-in", 0), hangup(15, "NOANSWER"), said("dial-in", 20))
    line.take(said("answer-in", 25))
    line.take(record(0, answered=25, ended=60))
    line.end()
    assert legs(verdict(line.told)) == [
        (PHONE, 0, None, 15, "NOANSWER"),
        (PHONE, 20, 25, 60, "ANSWER"),
    ]


def test_an_answered_record_is_not_matched_with_an_unanswered_leg() -> None:
    line = taken(said("dial-in", 0), hangup(15, "NOANSWER"), record(20, answered=25, ended=60))
    line.end()
    call = verdict(line.told)
    assert call.outcome is Outcome.ANSWERED
    assert legs(call) == [(PHONE, 0, None, 15, "NOANSWER"), (PHONE, 20, 25, 60, "ANSWER")]


def test_a_record_of_another_extension_is_another_leg() -> None:
    line = taken(said("dial-in", 0), hangup(15, "NOANSWER"), record(1, SECOND, answered=5, ended=9))
    line.end()
    call = verdict(line.told)
    assert (call.outcome, call.answered_by, call.closed_by) == (
        Outcome.ANSWERED,
        SECOND,
        "records",
    )


# The state


def test_a_live_call_is_small() -> None:
    state: CallState | None = None
    sizes = []
    for number in range(5):
        state = fold(state, said("dial-in", 0, f"0003*21{number}"), Kind.PHONE)
        sizes.append(len(to_state(tell(state, None, at(0), None)[0])))
    assert sizes[0] < 200
    assert sizes[4] < 700


def test_a_state_survives_a_round_trip_to_redis() -> None:
    line = taken(said("dial-in", 0), said("answer-in", 8), hangup(53, "ANSWER", bridged=True))
    line.take(record(0, answered=8, ended=53))
    assert line.state is not None
    assert from_state(to_state(line.state)) == line.state


# States that Offhook stored before it counted events that are left out.
OLD_LIVE = (
    b'["main","1795289400.101",[["0003*210","in",null,"phone",["+40211234567","Jane Doe",null,null,'
    b'"+40318100210"],[1795251600000000],[1795251608000000],[],[]],["0003*211","in",null,"phone",'
    b'["+40211234567","Jane Doe",null,null,"+40318100210"],[1795251600100000],[],'
    b'[[1795251608100000,"NOANSWER",null,null]],[]]],true,true,null,null,0]'
)
OLD_CLOSED = (
    b'["main","1795289400.101",[["0003*210","in",null,"phone",["+40211234567","Jane Doe",null,null,'
    b'"+40318100210"],[1795251600000000],[],[[1795251625000000,"NOANSWER",false,"r1"]],[]]],'
    b'true,false,"hangup","58cc5bb235daf207",0]'
)
OLD_RECORDED = (
    b'["main","1795289400.101",[["0003*210","in",null,"phone",["+40211234567","Jane Doe",null,null,'
    b'"+40318100210"],[1795251600000000],[1795251608000000],[],[[1795251600000000,1795251608000000,'
    b'1795251653000000,"ANSWER"]]]],true,true,"records","49aa3e18375efc13",0]'
)


def test_a_call_that_an_earlier_version_stored_goes_on() -> None:
    state = fold(from_state(OLD_LIVE), hangup(53, "ANSWER"), Kind.PHONE)
    state, told = tell(state, None, at(56), "hangup")
    assert [event.type for event in told] == ["call-ended"]
    call = verdict(told)
    assert (call.outcome, call.answered_by, call.gaps) == (Outcome.ANSWERED, PHONE, ())
    assert (call.ring_seconds, call.talk_seconds) == (8, 45)


@pytest.mark.parametrize("stored", [OLD_CLOSED, OLD_RECORDED])
def test_a_call_that_an_earlier_version_closed_is_not_corrected(stored: bytes) -> None:
    state = from_state(stored)
    assert tell(state, None, at(9999), "hangup") == (state, [])


def test_the_order_of_two_callbacks_at_the_same_moment_does_not_matter() -> None:
    one = said("dial-in", 0, caller=Party(number="1"))
    other = said("answer-in", 0, caller=Party(number="2"))
    assert fold(fold(None, one), other) == fold(fold(None, other), one)
    one, other = record(0, ended=5), replace(record(0, ended=5), caller=Party(number="2"))
    state = fold(fold(None, one), other)
    assert state == fold(fold(None, other), one)
    assert fold(fold(state, other), one) == state


def test_one_event_is_enough_to_know_the_kind_of_an_extension() -> None:
    one, other = said("dial-in", 0), hangup(20, "ANSWER")
    state = fold(fold(None, one, Kind.QUEUE), other)
    assert state == fold(fold(None, other), one, Kind.QUEUE)
    assert summarize(state, None).legs[0].kind is Kind.QUEUE


def test_a_call_is_incoming_if_one_extension_was_called_from_outside() -> None:
    out: dict[str, Any] = {"caller": Party(extension=SECOND), "direction": "out"}
    state = fold(fold(None, said("dial-in", 0)), said("dial-out", 5, SECOND, **out))
    assert summarize(state, None).direction == "in"


# Numbers


@pytest.mark.parametrize(
    ("number", "region", "full"),
    [
        ("+442079460100", None, "+442079460100"),
        ("+44 20 7946-0100", "DE", "+442079460100"),
        ("02079460100", "GB", "+442079460100"),
        ("442079460100", "GB", "+442079460100"),
        ("442079460100", "US", "+442079460100"),
        ("12025550112", "GB", "+12025550112"),
        ("2025550112", "US", "+12025550112"),
        ("00493023125123", "GB", "+493023125123"),
        ("02079460100", None, None),
        ("442079460100", None, None),
        ("210", "GB", None),
        ("0003*210", "GB", None),
        ("4416149601", "GB", None),
        ("+1", "GB", None),
        ("+44", None, None),
        ("+4420794601001234567", None, None),
        ("anonymous", "GB", None),
        ("0800FLOWERS", "US", None),
        ("", "GB", None),
        (None, "GB", None),
    ],
)
def test_a_number_in_e164(number: str | None, region: str | None, full: str | None) -> None:
    assert e164(number, region) == full


def test_moments_are_utc() -> None:
    assert summarize(fold(None, said("dial-in", 0)), None).started.tzinfo is UTC
