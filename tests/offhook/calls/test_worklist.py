"""Missed callers, and how they are reached, from the calls alone."""

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

from offhook.call import Call, Leg, Outcome, Party
from offhook.calls import MissedCaller, Worklist, worklist

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
NUMBER = "+447700900168"


def call(
    id_: str,
    minute: float,
    direction: Any = "in",
    outcome: Outcome | None = Outcome.MISSED,
    number: str | None = NUMBER,
    talking: bool = False,
) -> Call:
    """A call of half a minute with a number outside."""
    began = NOON + timedelta(minutes=minute)
    answered = talking or outcome is Outcome.ANSWERED
    outside = Party(number=number, e164=number if number and number.startswith("+") else None)
    inside = Party(extension="0003*210")
    return Call(
        id=id_,
        pbx="main",
        direction=direction,
        caller=outside if direction == "in" else inside,
        called=inside if direction == "in" else outside,
        started=began,
        answered=began + timedelta(seconds=5) if answered else None,
        ended=None if outcome is None else began + timedelta(seconds=30),
        answered_by="0003*210" if answered else None,
        talk_seconds=25.0 if answered else 0.0,
        outcome=outcome,
        closed_by=None if outcome is None else "hangup",
        legs=(Leg(extension="0003*210"),),
    )


def worked_off(*calls: Call) -> list[MissedCaller]:
    made = Worklist()
    for each in calls:
        made.put(each)
    return made.callers()


def ids(caller: MissedCaller) -> list[str]:
    return [each.id for each in caller.calls]


def test_a_missed_caller_is_open_until_a_colleague_calls_back() -> None:
    missed, again = call("1", 0), call("2", 3, outcome=Outcome.BUSY)
    in_vain = call("3", 5, "out", Outcome.MISSED)
    [waiting] = worked_off(missed, again, in_vain)
    assert waiting.reached is None
    assert ids(waiting) == ["1", "2"]
    assert waiting.since == missed.ended
    back = call("4", 10, "out", Outcome.ANSWERED)
    [closed] = worked_off(missed, again, in_vain, back)
    assert closed.reached is not None
    assert (closed.reached.how, closed.reached.tries) == ("called back", 2)
    assert (closed.reached.call, closed.reached.by) == ("main/4", "0003*210")
    assert closed.reached.talk_seconds == 25.0


def test_a_missed_caller_who_gets_through_is_closed_at_the_answer() -> None:
    talking = call("2", 4, outcome=None, talking=True)
    [closed] = worked_off(call("1", 0), talking)
    assert closed.reached is not None
    assert (closed.reached.how, closed.reached.tries) == ("got through", 0)
    assert closed.reached.at == talking.answered
    assert closed.reached.talk_seconds is None  # they still talk


def test_a_call_that_rings_is_shown_and_closes_nothing() -> None:
    for direction in ("in", "out"):
        ringing = call("2", 4, direction, None)
        [waiting] = worked_off(call("1", 0), ringing)
        assert waiting.reached is None
        assert waiting.current == ringing


def test_a_caller_who_is_missed_again_is_open_again() -> None:
    calls = [call("1", 0), call("2", 5, outcome=Outcome.ANSWERED), call("3", 9)]
    first, second = worked_off(*calls)
    assert (ids(first), ids(second)) == (["1"], ["3"])
    assert first.reached is not None
    assert second.reached is None


def test_the_order_in_which_calls_become_known_does_not_matter() -> None:
    missed = call("1", 0)
    calls = [missed, call("2", 5, "out", Outcome.MISSED), call("3", 9, "out", Outcome.ANSWERED)]
    expected = worked_off(*calls)
    for others in permutations(calls):
        made = Worklist()
        made.put(missed)  # until then, it keeps none of them
        for each in (*others, *others):
            made.put(each)
        assert made.callers() == expected


def test_what_is_no_missed_call_opens_nothing() -> None:
    assert (
        worked_off(
            call("1", 0, "out", Outcome.MISSED),
            call("2", 0, outcome=Outcome.ANSWERED),
            call("3", 0, outcome=None),
            call("4", 0, "internal", Outcome.MISSED, "0003*211"),
            call("5", 0, number=None),
            call("6", 0, number="anonymous"),
            call("7", 0, number="112"),
        )
        == []
    )


def test_a_number_is_the_same_in_every_spelling_and_no_other_is() -> None:
    for spelling, same in (
        ("07700900168", True),
        ("00447700900168", True),
        ("447700900168", True),
        ("+447700900168", True),
        ("+157700900168", False),
        ("7700900169", False),
        ("0900168", False),
    ):
        back = call("2", 5, "out", Outcome.ANSWERED, spelling)
        [caller] = worked_off(call("1", 0), back)
        assert (caller.reached is not None) is same, spelling


def test_two_callers_whose_numbers_end_alike_are_two() -> None:
    one, other = call("1", 0), call("2", 1, number="+13120900168")
    assert [ids(each) for each in worked_off(one, other)] == [["1"], ["2"]]


def test_the_list_is_bounded_and_forgets() -> None:
    made = Worklist()
    for n in range(worklist.MOST + 5):
        made.put(call(str(n), n, number=f"+4477{n:08}"))
    assert len(made.callers()) == worklist.MOST
    assert ids(made.callers()[0]) == ["5"]
    made.forget(NOON + timedelta(minutes=worklist.MOST))
    assert len(made.callers()) == 5
