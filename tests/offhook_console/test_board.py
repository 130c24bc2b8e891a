"""The board keeps indexes and tallies. A plain one, which scans all its calls, says the same."""

from datetime import UTC, datetime, timedelta
from heapq import nlargest
from statistics import fmean, median

from hypothesis import given
from hypothesis import strategies as st

from offhook.call import Call, Leg, Outcome, Party
from offhook_console.board import JUST_ENDED, Board
from offhook_console.people import View
from offhook_console.wording import duration, short

MIDNIGHT = datetime(2026, 11, 28, tzinfo=UTC)
PHONES = ("0003*210", "0003*211", "0003*900")
VIEWS = [View(masked=False, own=own) for own in (
    None, frozenset(), frozenset(PHONES[:1]), frozenset(PHONES[1:]), frozenset({"0003*999"})
)]  # fmt: skip
LANES = ("ringing", "talking", "ended")
# Around the limit of 20 s, or any.
SECONDS = st.sampled_from([5.0, 20.0, 20.000001, 31.5, None]) | st.integers(0, 60_000_000).map(
    lambda micros: micros / 1e6
)


class PlainBoard:
    """What a board promises, in the plain way."""

    def __init__(self, answer_within: float) -> None:
        self.within = answer_within
        self.shown: dict[str, Call] = {}
        self.today: dict[str, Call] = {}

    def put(self, call: Call, midnight: datetime) -> None:
        self.shown[call.id] = call
        if call.started >= midnight:
            self.today[call.id] = call

    def forget(self, now: datetime, midnight: datetime) -> set[str]:
        old = {name for name, call in self.shown.items()
               if call.closed_by and end_of(call) < now - JUST_ENDED}  # fmt: skip
        self.shown = {name: call for name, call in self.shown.items() if name not in old}
        self.today = {name: each for name, each in self.today.items() if each.started >= midnight}
        return {f"main/{name}" for name in old}

    def lane(self, lane: str, view: View) -> list[Call]:
        found = [call for call in self.shown.values() if lane_of(call) == lane and view.shows(call)]
        if lane == "ended":
            return nlargest(12, found, key=end_of)
        return sorted(found, key=lambda call: call.answered or call.started)

    def figures(self, view: View) -> list[tuple[float | None, str]]:
        today = [call for call in self.today.values() if view.shows(call)]
        incoming = [call for call in today if call.direction == "in" and call.outcome]
        answered = [call for call in today if call.outcome is Outcome.ANSWERED]
        missed = [call for call in incoming if call.outcome is Outcome.MISSED]
        caught = [call for call in incoming if call.outcome is Outcome.ANSWERED]
        rang = [call.ring_seconds for call in caught
                if call.answered_by and call.ring_seconds is not None]  # fmt: skip
        talked = [call.talk_seconds for call in answered
                  if call.answered_by and call.talk_seconds is not None]  # fmt: skip
        due = len(rang) + len(missed)
        met = [each for each in rang if each <= self.within]

        def share(part: list[Call]) -> str:
            if not incoming:
                return "no incoming call yet"
            return f"{round(100 * len(part) / len(incoming))} % of incoming"

        return [
            (len(today), f"{len(incoming)} incoming"),
            (len(caught), share(caught)),
            (len(missed), share(missed)),
            (fmean(rang), f"median {short(median(rang))}") if rang else (None, "no call yet"),
            (fmean(talked), f"median {duration(median(talked))}")
            if talked
            else (None, "no call yet"),
            (100 * len(met) / due if due else None, f"answered in {self.within:g}\u00a0s"),
        ]


def end_of(call: Call) -> datetime:
    return call.ended or call.started


def lane_of(call: Call) -> str:
    if call.closed_by:
        return "ended"
    return "talking" if call.answered_by else "ringing"


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """One of few calls, as it may be known at some moment. No two begin or end at the same time."""
    number = draw(st.integers(0, 9))
    began = MIDNIGHT + timedelta(hours=draw(st.sampled_from([*range(24), -1, 30])), seconds=number)
    closed = draw(st.sampled_from([True, True, False]))
    rang, talked = draw(SECONDS), draw(SECONDS)
    by = draw(st.sampled_from([*PHONES, None]))
    extensions = draw(st.lists(st.sampled_from(PHONES), max_size=3))
    return Call(
        id=str(number),
        pbx="main",
        direction=draw(st.sampled_from(["in", "in", "out", "internal"])),
        caller=Party(),
        called=Party(),
        started=began,
        ended=began + timedelta(seconds=draw(st.integers(0, 100)) * 10) if closed else None,
        answered_by=by,
        ring_seconds=rang,
        talk_seconds=talked,
        outcome=draw(st.sampled_from([Outcome.ANSWERED] * 4 + [*Outcome])) if closed else None,
        closed_by="hangup" if closed else None,
        legs=tuple(Leg(extension=each, rang=began) for each in extensions),
    )


# Mostly calls; sometimes a time since midnight.
STEP = st.one_of(calls(), calls(), calls(), st.integers(0, 40).map(lambda n: timedelta(hours=n)))


@given(st.lists(STEP, min_size=5, max_size=20))
def test_board_says_what_a_scan_of_all_calls_says(steps: list[Call | timedelta]) -> None:
    board, plain, midnight = Board(20), PlainBoard(20), MIDNIGHT
    for step in steps:
        if isinstance(step, Call):
            board.put(step, midnight)
            plain.put(step, midnight)
            assert board.known(step) == step
        else:
            now = max(MIDNIGHT + step, midnight)  # no day comes twice
            midnight = now.replace(hour=0)
            assert board.forget(now, midnight).keys() == plain.forget(now, midnight)
        assert board.has_calls == bool(plain.shown or plain.today)
        for view in VIEWS:
            found = [(figure.value, figure.below) for figure in board.figures(view)]
            assert found == plain.figures(view)
            lanes = {lane: plain.lane(lane, view) for lane in LANES}
            assert {lane: board.lane(lane, view) for lane in LANES} == lanes
            assert board.counts(view) == {lane: len(found) for lane, found in lanes.items()}
            if view.own is not None:
                shown = [call for call in plain.shown.values() if view.shows(call)]
                shown.sort(key=lambda call: call.started)
                assert board.calls_of(view.own) == shown
