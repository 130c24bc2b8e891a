"""The legs of a call: match each dial with its answer and its hangup. Pure.

In linear time: an answer or a record is compared only with the few legs that are next to it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise, zip_longest
from math import inf

import msgspec

from offhook.call import Kind, Outcome
from offhook.calls.facts import CallState, Hangup, PartFacts, RecordFacts

DISORDER = 2_000_000  # microseconds by which callbacks may overtake each other
NEAR = 8  # legs on each side of a moment that can be the leg of a fact of this moment

# The outcome by the statuses in the hangups of an unanswered call; the first one found decides.
UNANSWERED = {
    "NOANSWER": Outcome.MISSED,
    "CANCEL": Outcome.CANCELLED,
    "BUSY": Outcome.BUSY,
    "CHANUNAVAIL": Outcome.UNREACHABLE,
    "CONGESTION": Outcome.FAILED,
}


class FoldedLeg(msgspec.Struct, gc=False):
    """One period in which an extension was in the call.

    Attributes:
        talked: microseconds of talk, according to its hangup.
        recorded: only the PBX's records say how it ended.
        replaced: it rang, and its hangup is missing: its extension was called again later.
        elsewhere: its hangup says ANSWER, and another leg was answered: see `roles`.
        room: callers wait in it: a queue or an IVR.
        stray: nothing but its hangup says that it belongs to the call.
    """

    part: PartFacts
    rang: int | None = None
    answered: int | None = None
    ended: int | None = None
    status: str | None = None
    bridged: bool | None = None
    recording: str | None = None
    talked: int | None = None
    has_record: bool = False
    recorded: bool = False
    replaced: bool = False
    elsewhere: bool = False
    room: bool = False
    stray: bool = False

    @property
    def begin(self) -> int:
        return min([at for at in (self.rang, self.answered, self.ended) if at is not None])

    @property
    def was_answered(self) -> bool:
        return self.answered is not None or (self.status == "ANSWER" and not self.elsewhere)

    def spans(self, at: int, slack: int) -> bool:
        """Return whether this moment can be within the leg."""
        began, ended = self.rang is None or self.rang <= at + slack, self.ended
        return began and (ended is None or at <= ended + slack)

    def outside(self, at: int) -> int:
        """Return the microseconds between this moment and the leg; 0 if it is within."""
        before = 0 if self.rang is None else self.rang - at
        return max(0, before, 0 if self.ended is None else at - self.ended)

    def calls(self, extension: str) -> bool:
        """Return whether the leg calls this extension, by its long or its short number."""
        words = self.part.words
        return self.part.flow == "out" and (
            words.peer == extension or words.called in (extension, short(extension))
        )


def short(extension: str) -> str:
    """The short number of an extension: `210` of `0003*210`."""
    return extension.rpartition("*")[2]


def pair_legs(state: CallState) -> list[FoldedLeg]:
    """All legs, in the order in which they began."""
    legs = [leg for part in state.parts for leg in _legs_of(part)]
    for leg in legs:
        if leg.answered is None and leg.was_answered:
            if leg.part.kind is Kind.CONFERENCE:
                leg.answered = leg.rang  # at once; its answer event is usually not registered
            elif leg.talked and leg.ended is not None:
                leg.answered = max(leg.ended - leg.talked, leg.rang or 0)
        # Callbacks may overtake each other: no moment is later than the one that follows it.
        for at in (leg.ended, leg.answered):
            if at is not None:
                leg.answered = None if leg.answered is None else min(leg.answered, at)
                leg.rang = None if leg.rang is None else min(leg.rang, at)
    return _sorted(legs)  # those that began together: in the order of their parts


def _legs_of(part: PartFacts) -> list[FoldedLeg]:
    if part.id is None:
        pairs, answers = _pairs(part.dials, part.hangups), part.answers
    else:  # one leg, even if callbacks were repeated
        pairs = list(zip_longest(part.dials[:1], part.hangups[:1]))
        answers = part.answers[:1]
    found = _sorted([_leg(part, dial, hangup) for dial, hangup in pairs])
    if answers:
        legs = _Legs(found)
        for answer in answers:
            _put_answer(legs, part, answer)
        found = legs.all
    for leg, later in pairwise(found):
        leg.replaced = not leg.was_answered and leg.ended is None and later.rang is not None
    if part.records:
        legs = _Legs(_sorted(found))
        for record in part.records:
            _put_record(legs, part, record)
        found = legs.all
    return found


class _Legs:
    """The legs of one part, sorted by when they began, and those that had to be added to them."""

    def __init__(self, legs: list[FoldedLeg]) -> None:
        self._legs = legs
        self._begins = [leg.begin for leg in legs]
        self.added: list[FoldedLeg] = []

    @property
    def all(self) -> list[FoldedLeg]:
        return self._legs + self.added

    def near(self, at: int) -> list[FoldedLeg]:
        """The legs that began next to this moment, before and after it."""
        index = bisect_right(self._begins, at)
        return self._legs[max(0, index - NEAR) : index + NEAR] + self.added[-NEAR:]


def _sorted(legs: list[FoldedLeg]) -> list[FoldedLeg]:
    """The legs in the order in which they began; most often there is only one."""
    return legs if len(legs) == 1 else sorted(legs, key=lambda leg: leg.begin)


def _leg(part: PartFacts, dial: int | None, hangup: Hangup | None) -> FoldedLeg:
    if hangup is None:
        return FoldedLeg(part, dial)
    return FoldedLeg(
        part,
        dial,
        ended=hangup.at,
        status=hangup.status,
        bridged=hangup.bridged,
        recording=hangup.recording,
        talked=hangup.talked,
    )


def _pairs(
    all_dials: Sequence[int], all_hangups: Sequence[Hangup]
) -> list[tuple[int | None, Hangup | None]]:
    """Match dials with hangups: the first with the first and so on, unless one is missing."""
    if not (all_dials and all_hangups):
        return list(zip_longest(all_dials, all_hangups))
    dials, hangups = list(all_dials), list(all_hangups)
    ends = [hangup.at for hangup in hangups]
    pairs: list[tuple[int | None, Hangup | None]] = []
    checked = 0  # how many of the first dials and hangups alternate
    while dials and hangups:
        if len(dials) < len(hangups):
            # A dial belongs to the next hangup; the dial of any hangup before it is missing.
            dial, checked = dials.pop(0), 0
            before = bisect_left(ends, dial)
            if before == len(ends):
                before = bisect_left(ends, dial - DISORDER)
            if before == len(ends):
                pairs.append((dial, None))
                continue
            pairs += [(None, hangup) for hangup in hangups[:before]] + [(dial, hangups[before])]
            del hangups[: before + 1], ends[: before + 1]
            continue
        while checked < len(ends) and _alternates(dials, ends, checked):
            checked += 1
        if checked >= len(ends):
            break
        # A hangup belongs to the last dial before it; the hangup of any earlier dial is
        # missing, and a later dial's leg goes on.
        hangup, end = hangups.pop(), ends.pop()
        index = bisect_right(dials, end) or bisect_right(dials, end + DISORDER)
        pairs.append((dials[index - 1] if index else None, hangup))
        if index:
            pairs += [(dial, None) for dial in dials[index:]]
            del dials[index - 1 :]
    return pairs + list(zip_longest(dials, hangups))


def _alternates(dials: Sequence[int], ends: Sequence[int], n: int) -> bool:
    """Return whether a hangup comes after its dial and before the next; the last may go on."""
    next_ = dials[n + 1] if n + 1 < len(dials) else inf
    return dials[n] - DISORDER <= ends[n] <= next_ + DISORDER


def _put_answer(legs: _Legs, part: PartFacts, answer: int) -> None:
    """Give the answer to the leg that fits best, or make a leg of it if none fits."""
    around = [leg for leg in legs.near(answer) if leg.spans(answer, DISORDER)]
    free = [leg for leg in around if leg.answered is None]
    likely = (
        [leg for leg in free if leg.status == "ANSWER"]
        or [leg for leg in free if leg.status not in UNANSWERED]
        or [leg for leg in free if leg.spans(answer, 0)]
    )
    if likely:
        leg = min(likely, key=lambda leg: (leg.outside(answer), -leg.begin))
        leg.answered = answer
    elif not any(leg.answered is not None for leg in around):  # else a repeat
        legs.added.append(FoldedLeg(part, answered=answer))


def _put_record(legs: _Legs, part: PartFacts, record: RecordFacts) -> None:
    """Complete the leg that is most like the record, or make a leg of it."""
    free = [
        leg
        for leg in legs.near(record.began)
        if not leg.has_record and (record.answered is None or leg.status not in UNANSWERED)
    ]
    if not free:
        free = [FoldedLeg(part, rang=record.began)]
        legs.added += free
    leg = min(free, key=lambda leg: abs(leg.begin - record.began))
    leg.has_record = True
    if leg.rang is None:
        leg.rang = record.began
    if leg.answered is None:
        leg.answered = record.answered
    if leg.ended is None:  # a record often says how a leg ended, and not when
        leg.ended, leg.status, leg.recorded = record.ended, record.status, True
