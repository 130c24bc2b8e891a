"""What pages show of calls: words, masks, pictures, the board and its figures. Pure."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook import ExtensionSettings
from offhook.call import Call, Kind, Leg, Outcome, Party
from offhook.calls import MissedCaller
from offhook_console.board import Board
from offhook_console.call_views import call_key, view_call
from offhook_console.drawing import course, timeline
from offhook_console.missed_views import view_missed
from offhook_console.people import View
from offhook_console.wording import duration, short, shown_name, shown_number

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
ALL, MASKED = View(masked=False), View(masked=True)
CALLER = Party(number="07700900168", name="Müller GmbH", e164="+447700900168")


def call(
    id: str = "1",  # noqa: A002
    *,
    direction: str = "in",
    caller: Party = CALLER,
    rang: float = 6.0,
    talked: float | None = None,
    outcome: Outcome | None = None,
    kind: Kind | None = None,
    began: datetime = NOON,
) -> Call:
    """Return a call of 0003*210 that goes on, or ended with this outcome."""
    answered = None if talked is None else began + timedelta(seconds=rang)
    ended = None if outcome is None else began + timedelta(seconds=rang + (talked or 0.0))
    leg = Leg(
        extension="0003*210",
        kind=kind,
        direction="in",
        rang=began,
        answered=answered,
        ended=ended,
        status="ANSWER" if answered else "NOANSWER",
    )
    return Call(
        id=id,
        pbx="main",
        direction=direction,  # type: ignore[arg-type]
        caller=caller,
        called=Party(number="442079460100", extension="0003*210"),
        started=began,
        answered=answered,
        ended=ended,
        answered_by="0003*210" if answered else None,
        ring_seconds=rang,
        talk_seconds=talked or 0.0,
        outcome=outcome,
        closed_by="hangup" if outcome else None,
        legs=(leg,),
    )


@pytest.mark.parametrize(
    ("seconds", "long", "brief"),
    [
        (0.4, "0:00", "0.4 s"),
        (9, "0:09", "9 s"),
        (59.6, "1:00", "60 s"),
        (94, "1:34", "1:34"),
        (3723, "1:02:03", "62 min"),
        (64800, "18:00:00", "18 h"),
        (259200, "72:00:00", "3 days"),
        (None, "–", "–"),
    ],
)
def test_durations(seconds: float | None, long: str, brief: str) -> None:
    assert (duration(seconds), short(seconds)) == (long, brief)


@pytest.mark.parametrize(
    ("number", "full", "masked"),
    [
        ("+447700900168", "+44 7700 900168", "+44 •••• •••168"),
        ("07700900168", "07700900168", "••••••••168"),
        ("112", "112", "112"),
        ("+1", "+1", "+1"),
        ("+0000000168 Bob", "+0000000168 Bob", "+•••••••168 Bob"),
        (" 447700900168", " 447700900168", " •••••••••168"),
        (None, None, None),
    ],
)
def test_numbers(number: str | None, full: str | None, masked: str | None) -> None:
    assert shown_number(number, masked=False) == full
    assert shown_number(number, masked=True) == masked


@given(st.text(max_size=40))
def test_a_mask_shows_three_digits_and_a_country_at_most(text: str) -> None:
    masked = shown_number(text, masked=True)
    assert masked is not None
    national = masked.partition(" ")[2] if masked.startswith("+") else masked
    assert sum(map(str.isdigit, national)) <= 3


@given(st.text(alphabet="0123456789 +-ab", max_size=30))
def test_a_name_that_may_be_a_number_is_masked(name: str) -> None:
    shown = shown_name(name, masked=True) or ""
    digits = sum(map(str.isdigit, name))
    assert sum(map(str.isdigit, shown.partition(" ")[2] or shown)) <= 4 or digits < 5


def test_the_outside_party_is_the_headline() -> None:
    labels = {("main", "0003*210"): ExtensionSettings(label="Front desk")}
    view = view_call(call(), ALL, labels, NOON)
    assert (view.other.head, view.other.line) == ("Müller GmbH", "+44 7700 900168")
    assert view.place == "Front desk 0003*210"
    masked = view_call(call(), MASKED, labels, NOON)
    assert (masked.other.head, masked.other.line) == ("Müller GmbH", "+44 •••• •••168")
    withheld = view_call(call(caller=Party(number="anonymous")), ALL, {}, NOON)
    assert (withheld.other.head, withheld.other.line) == ("withheld number", "")
    numbered = view_call(
        call(caller=Party(number="07700900168", name="07700 900168")), ALL, {}, NOON
    )
    assert numbered.other.line == "no name known"


@pytest.mark.parametrize(
    ("made", "lane", "state", "word"),
    [
        (call(), "ringing", "ring", "ringing"),
        (call(kind=Kind.QUEUE), "ringing", "ring", "waiting"),
        (call(talked=5), "talking", "live", "talking"),
        (call(talked=5, outcome=Outcome.ANSWERED), "ended", "ok", "answered"),
        (call(outcome=Outcome.MISSED), "ended", "bad", "missed"),
        (call(outcome=Outcome.BUSY), "ended", "off", "busy"),
    ],
)
def test_a_call_has_one_lane_and_one_state(made: Call, lane: str, state: str, word: str) -> None:
    view = view_call(made, ALL, {}, NOON + timedelta(minutes=1))
    assert (view.lane, view.state, view.word) == (lane, state, word)
    board = Board(20)
    board.put(made, NOON)
    assert [each for each in ("ringing", "talking", "ended") if board.lane(each, ALL)] == [lane]


@given(st.text())
def test_the_id_of_a_card_is_safe_whatever_the_call_id(name: str) -> None:
    assert call_key(name).isalnum()
    assert call_key(name) != call_key(f"{name}~2")


@given(
    rang=st.floats(0, 1e6),
    talked=st.none() | st.floats(0, 1e6),
    outcome=st.sampled_from([None, *Outcome]),
    later=st.floats(0, 1e6),
)
def test_pictures_stay_within_their_frame(
    rang: float, talked: float | None, outcome: Outcome | None, later: float
) -> None:
    made = call(rang=rang, talked=talked, outcome=outcome)
    now = NOON + timedelta(seconds=rang + (talked or 0.0) + later)
    for bar in course(made, now):
        assert 0 <= bar.x <= bar.x + bar.width <= 200
    drawn = timeline(made, ["Front desk"], now)
    assert len(drawn.lines) <= 8
    [lane] = drawn.lanes
    assert all(bar.x >= 0 and bar.x + bar.width <= 101 for bar in lane.bars)
    assert lane.sentence.startswith("Front desk: ")


def test_a_caller_waits_in_a_queue_until_a_person_answers() -> None:
    made = call(talked=30, outcome=Outcome.ANSWERED, kind=Kind.QUEUE)
    [lane] = timeline(made, ["Sales"], NOON).lanes
    assert [bar.kind for bar in lane.bars] == ["ring"]
    assert "waited 6 s" in lane.sentence


def test_figures_of_the_day() -> None:
    board = Board(answer_within=20)
    for n, (rang, talked, outcome) in enumerate(
        [(5, 60, Outcome.ANSWERED), (35, 180, Outcome.ANSWERED), (25, None, Outcome.MISSED)]
    ):
        board.put(call(str(n), rang=rang, talked=talked, outcome=outcome), NOON)
    board.put(call("out", direction="out", talked=120, outcome=Outcome.ANSWERED), NOON)
    board.put(call("yesterday", outcome=Outcome.MISSED, began=NOON - timedelta(hours=3)), NOON)
    found = {each.name: (each.value, each.below) for each in board.figures(ALL)}
    assert found["Calls today"] == (4, "3 incoming")
    assert found["Answered"] == (2, "67 % of incoming")
    assert found["Missed"] == (1, "33 % of incoming")
    assert found["Ringing time"] == (20, "median 20 s")
    assert found["Talk time"] == (120, "median 2:00")
    assert found["Service level"][0] == pytest.approx(100 / 3)
    nothing = {each.value for each in board.figures(View(masked=False, own=frozenset()))}
    assert nothing == {0, None}


def test_the_board_forgets() -> None:
    board = Board(20)
    board.put(call("old", outcome=Outcome.MISSED), NOON)
    board.put(call("live"), NOON)
    assert board.forget(NOON + timedelta(minutes=20), NOON).keys() == {"main/old"}
    assert [each.id for each in board.lane("ringing", ALL)] == ["live"]
    board.forget(NOON + timedelta(days=1), NOON + timedelta(days=1))
    assert board.figures(ALL)[0].value == 0


def test_a_missed_caller_is_shown_with_a_call_that_the_viewer_sees() -> None:
    mine = call("mine", outcome=Outcome.MISSED)
    leg = msgspec.structs.replace(mine.legs[0], extension="0003*299")
    later = msgspec.structs.replace(mine, id="later", legs=(leg,))
    caller = MissedCaller(calls=(mine, later))
    for own, last in ((None, "later"), (frozenset({"0003*210"}), "mine")):
        shown = view_missed(caller, View(masked=False, own=own), {}, NOON, "ruth")
        assert shown.last.name == f"main/{last}"


def test_events_are_counted_by_the_minute() -> None:
    board = Board(20)
    for seconds in (0, 30, 61, 3_000_000):
        board.count_event(NOON - timedelta(seconds=seconds))
    minutes = board.per_minute(NOON)
    assert len(minutes) == 60
    assert [number for _, number in minutes[-3:]] == [1, 1, 1]
    assert sum(number for _, number in minutes) == 3
