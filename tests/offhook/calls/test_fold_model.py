"""Random calls by the sandbox's rules: the fold finds what happened in them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise, product
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from offhook.call import Call, Gap, Kind, Outcome
from offhook.calls import CallState, fold, summarize, tell
from offhook.dialects.voipnow import read_event
from offhook.event import CallEvent, EventType, new_event_id
from tests.offhook.calls.folding import BEGAN, TIMEOUT, Line, calls, lawful, play, verdict
from unifiedapi.callback import CallStatus
from unifiedapi.sandbox.scenarios import Callback, from_outside, inside, passed_on, to_outside
from unifiedapi.sandbox.scenarios import ScriptedLeg as Leg

PHONES = [f"0003*21{n}" for n in range(6)]
QUEUE, IVR, CONFERENCE, AWAY = "0003*400", "0003*500", "0003*600", "0003*401"
KINDS = dict.fromkeys(PHONES, Kind.PHONE) | {
    QUEUE: Kind.QUEUE,
    IVR: Kind.IVR,
    CONFERENCE: Kind.CONFERENCE,
}
OUTSIDE_NUMBER = "441614960150"
OUTSIDE = {
    "CallID": "1",
    "CallerIDNum": OUTSIDE_NUMBER,
    "CalledDID": "442079460100",
    "CalledNumber": "442079460100",
}
INSIDE = {"CallID": "1", "CallerIDName": "Front Desk"}
# The outcome of a call by the best status of its phones, from the best to the worst.
OUTCOMES = [
    (CallStatus.NOANSWER, Outcome.MISSED),
    (CallStatus.CANCEL, Outcome.CANCELLED),
    (CallStatus.BUSY, Outcome.BUSY),
    (CallStatus.CHANUNAVAIL, Outcome.UNREACHABLE),
    (CallStatus.CONGESTION, Outcome.FAILED),
]


@dataclass
class Story:
    """What happens in a call, in tenths of a second, and the callbacks that the PBX makes."""

    direction: str = "in"
    outcome: Outcome = Outcome.ANSWERED
    answered_by: str | None = None
    answered: int | None = None
    talked: set[int] = field(default_factory=set)  # each tenth of a second
    legs: list[tuple[str, str, int, int | None, int, str]] = field(default_factory=list)
    callbacks: list[Callback] = field(default_factory=list)

    def leg(
        self, leg: Leg, dial: int, answer: int | None, end: int, status: CallStatus | None = None
    ) -> None:
        said = CallStatus.ANSWER if answer is not None else status or CallStatus.NOANSWER
        self.legs.append((leg.extension, leg.flow.lower(), dial, answer, end, said))
        self.callbacks.append(leg.dial(dial / 10))
        if answer is not None:
            self.callbacks.append(leg.answer(answer / 10))
        self.callbacks.append(leg.hang_up(end / 10, said))

    def talk(self, extension: str, begin: int, end: int) -> None:
        """The extension answers, and talks until then."""
        if self.answered is None:
            self.answered, self.answered_by = begin, extension
        self.talked |= set(range(begin, end))

    @property
    def ended(self) -> int:
        return max(end for *_, end, _ in self.legs)

    @property
    def events(self) -> list[CallEvent]:
        found = []
        for each in sorted(self.callbacks, key=lambda each: each.at):
            event = read_event(
                pbx="main",
                extension=each.extension,
                type=EventType(each.type.label),
                parameters=dict(each.parameters),
                received=BEGAN + timedelta(seconds=each.at),
            )
            found.append(event)
        return found


tenths = st.integers


@st.composite
def stories(draw: st.DrawFn) -> Story:
    story = Story()
    how = draw(
        st.sampled_from(
            ["group", "queue", "ivr", "outgoing", "internal", "pauses", "conference", "forward"]
        )
    )
    if how == "outgoing":
        return outgoing(draw, story)
    if how == "internal":
        return internal(draw, story)
    if how == "conference":
        return conference(draw, story)
    at = 0
    if how == "ivr":
        leaves = draw(tenths(5, 300))
        story.leg(from_outside(IVR, OUTSIDE), 0, 1, leaves + 1)
        story.outcome, at = Outcome.MISSED, leaves
        if draw(st.booleans()):
            return story
    if how == "queue":
        taken = queue(draw, story, at, OUTSIDE, by=None)
    elif how == "pauses":
        taken = queue_that_is_not_set_up(draw, story)
    elif how == "forward":
        forward(draw, story)
        return story
    else:
        taken = group(draw, story, at, None if at == 0 else IVR)
    if taken:
        passed(draw, story, *taken, OUTSIDE)
    return story


def group(draw: st.DrawFn, story: Story, at: int, by: str | None) -> tuple[str, int] | None:
    """Phones ring together. Returns the one that answered, and when it hung up."""
    phones = draw(st.lists(st.sampled_from(PHONES), min_size=1, max_size=5, unique=True))
    legs = [passed_on(p, OUTSIDE, by) if by else from_outside(p, OUTSIDE) for p in phones]
    end = at + draw(tenths(5, 300))
    if draw(st.booleans()):
        losers = draw(st.sampled_from([CallStatus.NOANSWER, CallStatus.CANCEL, CallStatus.ANSWER]))
        for leg in legs[1:]:
            story.leg(leg, at, None, end, losers)
        story.outcome = Outcome.ANSWERED
        leave = answer_and_leave(draw, story, legs[0], at, end)
        return phones[0], leave
    best = draw(st.integers(0, len(OUTCOMES) - 1))
    story.outcome = OUTCOMES[best][1]
    others = draw(st.lists(st.integers(best, len(OUTCOMES) - 1), min_size=5, max_size=5))
    for leg, status in zip(legs, [best, *others], strict=False):
        story.leg(leg, at, None, end, OUTCOMES[status][0])
    return None


def queue_that_is_not_set_up(draw: st.DrawFn, story: Story) -> tuple[str, int] | None:
    """A queue without callbacks offers the call to its agents, with long pauses between them."""
    offers = draw(st.lists(st.sampled_from(PHONES[:3]), min_size=1, max_size=4))
    taken = draw(st.booleans())
    at, statuses = 0, set()
    for number, agent in enumerate(offers):
        begin = at + (draw(tenths(10, 9000)) if number else 0)
        at = begin + draw(tenths(10, 150))
        leg = passed_on(agent, OUTSIDE, by=AWAY)
        if taken and number == len(offers) - 1:
            return agent, answer_and_leave(draw, story, leg, begin, at)
        last = number == len(offers) - 1
        possible = [s for s, _ in OUTCOMES if last or s is not CallStatus.CANCEL]
        status = draw(st.sampled_from(possible))
        statuses.add(status)
        story.leg(leg, begin, None, at, status)
    story.outcome = next(outcome for status, outcome in OUTCOMES if status in statuses)
    return None


def forward(draw: st.DrawFn, story: Story) -> None:
    """A phone is forwarded to a phone outside; its own leg ends, or goes on to the end."""
    leaves = draw(tenths(1, 200))
    ring = leaves + draw(tenths(1, 300))
    over = ring + draw(tenths(10, 600))
    answered, stays = draw(st.booleans()), draw(st.booleans())
    to = {"CallerExtension": PHONES[0], "CalledNumber": "447700900123"}
    out = Leg(PHONES[0], "OUT", {**OUTSIDE, **to})
    if answered:
        story.leg(out, leaves, ring, over)
        story.talk(PHONES[0], ring, over)
    else:
        story.leg(out, leaves, None, over)
        story.outcome = Outcome.MISSED
    status = CallStatus.ANSWER if answered and stays else CallStatus.NOANSWER
    story.leg(from_outside(PHONES[0], OUTSIDE), 0, None, over if stays else leaves, status)


def conference(draw: st.DrawFn, story: Story) -> Story:
    leg = from_outside(CONFERENCE, OUTSIDE)
    answer_and_leave(draw, story, leg, 0, draw(tenths(1, 5)))
    return story


def queue(
    draw: st.DrawFn, story: Story, at: int, says: dict[str, str], by: str | None
) -> tuple[str, int] | None:
    """The queue offers the call to one agent after the other, perhaps to one repeatedly."""
    waiting = passed_on(QUEUE, says, by) if by else from_outside(QUEUE, says)
    offers = draw(st.lists(st.sampled_from(PHONES[:3]), max_size=5))
    taken = bool(offers) and draw(st.booleans())
    entered, at = at, at + 1
    story.outcome = story.outcome if story.answered is not None else Outcome.MISSED
    for number, agent in enumerate(offers):
        begin = at + draw(tenths(1, 20))
        at = begin + draw(tenths(1, 150))
        leg = passed_on(agent, says, by=QUEUE)
        if taken and number == len(offers) - 1:
            story.outcome = Outcome.ANSWERED
            leave = answer_and_leave(draw, story, leg, begin, at)
            story.leg(waiting, entered, entered + 1, at + 1)
            return agent, leave
        story.leg(leg, begin, None, at, draw(st.sampled_from([s for s, _ in OUTCOMES])))
    story.leg(waiting, entered, entered + 1, at + draw(tenths(1, 20)))
    return None


def answer_and_leave(draw: st.DrawFn, story: Story, leg: Leg, dial: int, answer: int) -> int:
    leave = answer + draw(tenths(1, 600))
    story.leg(leg, dial, answer, leave)
    story.talk(leg.extension, answer, leave)
    return leave


def passed(draw: st.DrawFn, story: Story, holder: str, at: int, says: dict[str, str]) -> None:
    """The call is transferred up to three times, each time by its current holder."""
    for how in draw(
        st.lists(st.sampled_from(["blind", "attended", "outside", "queue"]), max_size=3)
    ):
        if how == "outside":
            outside(draw, story, holder, at)
            return
        if how == "queue":
            taken = queue(draw, story, at, says, by=holder)
            if taken is None:
                return
            holder, at = taken
            continue
        target = draw(st.sampled_from([p for p in PHONES[1:] if p != holder]))
        ring = at + draw(tenths(1, 200))
        # With two outside legs at once, without ids, a hangup cannot be attributed.
        if how == "attended" and (holder, story.direction) != (PHONES[0], "out"):
            # The holder keeps the caller waiting, and leaves after talking to the target.
            asking, asked = inside(holder, target, INSIDE)
            leave = ring + draw(tenths(10, 200))
            over = leave + draw(tenths(1, 200))
            extend(story, holder, at, leave + 1)
            story.leg(asking, at, ring, leave)
            story.leg(asked, at, ring, over)
            story.talk(target, at, over)
            holder, at = target, over
            continue
        leg = passed_on(target, says, by=holder)
        if draw(st.booleans()):
            story.leg(leg, at, None, ring)
            return
        at = answer_and_leave(draw, story, leg, at, ring)
        holder = target


def extend(story: Story, holder: str, at: int, leave: int) -> None:
    """Make the holder's leg end later."""
    index = next(
        n
        for n, leg in enumerate(story.legs)
        if leg[0] == holder and leg[3] is not None and leg[4] == at
    )
    extension, flow, dial, answer, _, status = story.legs[index]
    story.legs[index] = extension, flow, dial, answer, leave, status
    for n, each in enumerate(story.callbacks):
        if each.extension == holder and each.type.label == "hangup" and each.at == at / 10:
            story.callbacks[n] = Callback(leave / 10, each.extension, each.type, each.parameters)
    story.talked |= set(range(at, leave))


def outside(draw: st.DrawFn, story: Story, holder: str, at: int) -> None:
    leg = to_outside(holder, "447700900123", INSIDE)
    ring = at + draw(tenths(1, 300))
    if draw(st.booleans()):
        answer_and_leave(draw, story, leg, at, ring)
    else:
        story.leg(leg, at, None, ring)


def outgoing(draw: st.DrawFn, story: Story) -> Story:
    story.direction = "out"
    leg = to_outside(PHONES[0], "02079460999", INSIDE)
    ring = draw(tenths(1, 300))
    if draw(st.booleans()):
        leave = answer_and_leave(draw, story, leg, 0, ring)
        says = {"CallID": "1", "CallerIDNum": "02079460999"}
        passed(draw, story, PHONES[0], leave, says)
    else:
        status, story.outcome = draw(st.sampled_from(OUTCOMES))
        story.leg(leg, 0, None, ring, status)
    return story


def internal(draw: st.DrawFn, story: Story) -> Story:
    story.direction = "internal"
    calling, called = inside(PHONES[0], PHONES[1], INSIDE)
    ring = draw(tenths(1, 300))
    if draw(st.booleans()):
        leave = answer_and_leave(draw, story, called, 0, ring)
        story.leg(calling, 0, ring, leave)
    else:
        status, story.outcome = draw(st.sampled_from(OUTCOMES))
        story.leg(called, 0, None, ring, status)
        story.leg(calling, 0, None, ring, status)
    return story


def seconds(tenths_: int | None) -> float | None:
    return None if tenths_ is None else tenths_ / 10


def assert_true(call: Call, story: Story, within: float = 0.0) -> None:
    """The call says what happened, with each moment within so many seconds."""

    def near(moment: Any, truth: int | None, times: int = 1) -> bool:
        if moment is None or truth is None:
            return moment is None and truth is None
        said = moment if isinstance(moment, float) else (moment - BEGAN).total_seconds()
        return bool(said == pytest.approx(truth / 10, abs=within * times + 1e-6))

    assert call.direction == story.direction
    assert call.outcome == story.outcome
    assert call.answered_by == story.answered_by
    assert near(call.started, 0)
    assert near(call.answered, story.answered)
    assert near(call.ended, story.ended)
    assert near(call.ring_seconds, story.ended if story.answered is None else story.answered, 2)
    assert near(call.talk_seconds, len(story.talked), 2 * len(story.legs))
    left = list(story.legs)
    for leg in call.legs:
        own = (leg.extension, leg.direction, leg.status)
        left.remove(
            next(
                each
                for each in left
                if own == (each[0], each[1], each[5])
                and near(leg.rang, each[2])
                # The moment when a queue answers by itself does not matter.
                and (leg.kind in (Kind.QUEUE, Kind.IVR) or near(leg.answered, each[3]))
                and near(leg.ended, each[4])
            )
        )
    assert not left


@given(stories())
def test_the_fold_finds_what_happened(story: Story) -> None:
    told = play(story.events, KINDS)
    assert_true(verdict(told), story)
    assert verdict(told).complete
    missed = story.direction != "out" and story.outcome is not Outcome.ANSWERED
    answered = story.answered is not None
    assert [event.type for event in told] == [
        EventType.CALL_STARTED,
        *[EventType.CALL_ANSWERED] * answered,
        EventType.CALL_ENDED,
        *[EventType.MISSED_CALL] * missed,
    ]
    assert verdict(told).caller.extension == (None if story.direction == "in" else PHONES[0])


LATEST = 9  # tenths of a second by which a callback is late


def delayed(story: Story, late: Sequence[int]) -> list[CallEvent]:
    """The events of a story, each so many tenths of a second late."""
    return [
        # No two at the very same moment.
        replace(event, received=event.received + timedelta(seconds=delay / 10, microseconds=n))
        for n, (event, delay) in enumerate(zip(story.events, late, strict=False))
    ]


def is_ambiguous(story: Story) -> bool:
    """Return whether the delays can swap callbacks of two legs of one phone.

    Without leg ids nothing tells then which answer or which hangup belongs to which leg.
    """
    return any(
        one[:2] == other[:2]
        and (
            other[4] - one[4] <= LATEST
            or (one[3] is not None and other[3] is not None and other[2] - one[3] < LATEST)
        )
        for one, other in pairwise(sorted(story.legs, key=lambda leg: leg[:3]))
    )


@given(stories(), st.data())
def test_the_fold_finds_what_happened_from_reordered_callbacks(
    story: Story, data: st.DataObject
) -> None:
    assume(not is_ambiguous(story))
    late = data.draw(st.lists(tenths(0, LATEST), min_size=30, max_size=30))
    told = play(delayed(story, late * 4), KINDS)
    assert_true(verdict(told), story, within=1)
    assert verdict(told).complete


def test_a_reordered_answer_belongs_to_the_nearest_leg() -> None:
    rng = Random(4711)
    for talk, ring in product((LATEST, 12, 20), (1, 5)):
        story = Story(direction="out")
        end = ring + talk
        story.leg(to_outside(PHONES[0], "02079460999", INSIDE), 0, ring, end)
        story.leg(to_outside(PHONES[0], "447700900123", INSIDE), end, end + 10, end + 30)
        story.talk(PHONES[0], ring, end)
        story.talk(PHONES[0], end + 10, end + 30)
        for _ in range(50):
            late = [rng.randint(0, LATEST) for _ in story.events]
            assert_true(verdict(play(delayed(story, late), KINDS)), story, within=1)


@given(stories(), st.data())
def test_a_call_with_a_missing_callback_is_right_or_marked(
    story: Story, data: st.DataObject
) -> None:
    events = story.events
    events.pop(data.draw(st.integers(0, len(events) - 1)))
    told = play(events, KINDS)
    call = verdict(told)
    if call.complete:
        # At most the answer of a queue, an IVR or a conference is missing: they answer at once.
        assert_true(call, story, within=1)
    if story.outcome is Outcome.ANSWERED:
        assert call.outcome is Outcome.ANSWERED
        assert EventType.MISSED_CALL not in [event.type for event in told]


@given(stories(), stories(), st.integers(4, 100_000))
def test_a_call_with_a_used_call_id_is_a_call_of_its_own(
    first: Story, second: Story, pause: int
) -> None:
    assume(second.direction == "in")
    shift = timedelta(seconds=first.ended / 10 + pause)
    later = [
        replace(
            event,
            received=event.received + shift,
            caller=replace(
                event.caller, number=(event.caller.number or "").replace(OUTSIDE_NUMBER, "447")
            ),
        )
        for event in second.events
    ]
    together = calls(play([*first.events, *later], KINDS))
    apart = [play(events, KINDS) for events in (first.events, later)]
    # A caller who may still wait in a queue does not when the CallID is used again.
    assert [replace(verdict(told), id="1", closed_by=None) for told in together.values()] == [
        replace(verdict(told), closed_by=None) for told in apart
    ]
    assert [[event.type for event in told] for told in together.values()] == [
        [event.type for event in told] for told in apart
    ]


# Promises about any events, even those that make no sense


@st.composite
def events(draw: st.DrawFn) -> CallEvent:
    """An event of the call `1`, plausible or not."""
    type_ = draw(
        st.sampled_from(
            [
                EventType.DIAL_IN,
                EventType.DIAL_OUT,
                EventType.ANSWER_IN,
                EventType.ANSWER_OUT,
                EventType.HANGUP,
                EventType.HANGUP,
                EventType.CALL_RECORD,
            ]
        )
    )
    words = st.sampled_from([None, "0003*210", "0003*211", "441614960150"])
    names = ["CallerIDNum", "CalledDID", "CalledExtension", "CallerExtension", "CalledNumber"]
    said = {"CallID": "1"} | {name: value for name in names if (value := draw(words))}
    if status := draw(st.sampled_from([None, "ANSWER", "NOANSWER", "BUSY", "UNKNOWN", "odd"])):
        said["CallStatus"] = status
    if flow := draw(st.sampled_from([None, "IN", "OUT"])):
        said["CallFlow"] = flow
    received = BEGAN + timedelta(seconds=draw(st.integers(0, 40)) / 2)
    event = read_event(
        pbx="main",
        extension=draw(st.sampled_from(["0003*210", "0003*211", QUEUE])),
        type=type_,
        parameters=said,
        received=received,
    )
    if type_ is EventType.CALL_RECORD:
        later = received + timedelta(seconds=draw(st.integers(0, 20)))
        moments = {"answered": later, "ended": later + timedelta(seconds=1)}
        kept = {name: at.isoformat() for name, at in moments.items() if draw(st.booleans())}
        return replace(event, parameters=kept)
    return replace(
        event,
        leg=draw(st.sampled_from([None, None, None, "leg-1", "leg-2"])),
        occurred=draw(st.sampled_from([None, received - timedelta(seconds=1)])),
        bridged=draw(st.sampled_from([None, None, True, False])),
        recording=draw(st.sampled_from([None, None, "rec-1"])),
    )


some_events = st.lists(events(), min_size=1, max_size=12)


def folded(events: list[CallEvent]) -> CallState:
    state = None
    for event in events:
        state = fold(state, event, KINDS[event.extension])
    assert state is not None
    return state


@given(some_events.flatmap(lambda found: st.tuples(st.just(found), st.permutations(found))))
def test_any_order_makes_the_same_state(orders: tuple[list[CallEvent], list[CallEvent]]) -> None:
    one, other = orders
    assert folded(one) == folded(other)


@given(some_events, st.data())
def test_folding_is_idempotent(found: list[CallEvent], data: st.DataObject) -> None:
    again = data.draw(st.lists(st.sampled_from(found)))
    assert folded(found + again) == folded(found)


@given(some_events)
def test_any_events_lead_to_valid_events_about_the_call_each_made_once(
    found: list[CallEvent],
) -> None:
    line = Line(KINDS)
    for event in sorted(found, key=lambda event: event.received):
        line.take(event)
    line.end()
    for told in calls(line.told).values():
        lawful(told)
    for state, closing in product(line.states.values(), (None, "hangup", "silence")):
        assert tell(state, "GB", BEGAN + TIMEOUT, closing) == (state, [])  # type: ignore[arg-type]


@given(some_events)
def test_any_events_make_a_possible_call(found: list[CallEvent]) -> None:
    call = summarize(replace(folded(found), closed="hangup"), "GB")
    assert call.ended is not None
    assert call.started <= (call.answered or call.ended) <= call.ended
    assert call.ring_seconds is None or call.ring_seconds >= 0
    length = (call.ended - call.started).total_seconds()
    assert call.talk_seconds is None or 0 <= call.talk_seconds <= length
    assert len(call.legs) <= len(found)
    for leg in call.legs:
        moments = [at for at in (leg.rang, leg.answered, leg.ended) if at]
        assert moments == sorted(moments)
    if call.complete:
        assert all(leg.ended for leg in call.legs)
    assert Gap.LATE not in call.gaps


@given(some_events)
def test_events_about_a_call_have_different_ids_that_never_change(found: list[CallEvent]) -> None:
    state = folded(found)
    _, told = tell(state, "GB", BEGAN, "hangup")
    _, again = tell(state, "GB", BEGAN + timedelta(days=1), "hangup")
    ids = [event.id for event in told]
    assert ids == [event.id for event in again]
    assert len({*ids, new_event_id()}) == len(ids) + 1
