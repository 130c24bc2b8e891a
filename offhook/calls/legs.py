"""The legs of a call: match each dial with its answer and its hangup. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from math import inf

from offhook.call import Kind, Outcome
from offhook.calls.facts import CallState, Hangup, PartFacts, RecordFacts, part_order

DISORDER = 2_000_000  # microseconds by which callbacks may overtake each other

# The outcome by the statuses in the hangups of an unanswered call; the first one found decides.
UNANSWERED = {
    "NOANSWER": Outcome.MISSED,
    "CANCEL": Outcome.CANCELLED,
    "BUSY": Outcome.BUSY,
    "CHANUNAVAIL": Outcome.UNREACHABLE,
    "CONGESTION": Outcome.FAILED,
}


@dataclass(slots=True)
class FoldedLeg:
    """One period in which an extension was in the call.

    Attributes:
        recorded: only the PBX's records say how it ended.
        replaced: it rang, and its hangup is missing: its extension was called again later.
    """

    part: PartFacts
    rang: int | None = None
    answered: int | None = None
    ended: int | None = None
    status: str | None = None
    bridged: bool | None = None
    recording: str | None = None
    has_record: bool = False
    recorded: bool = False
    replaced: bool = False

    @property
    def begin(self) -> int:
        return min(at for at in (self.rang, self.answered, self.ended) if at is not None)

    @property
    def was_answered(self) -> bool:
        return self.answered is not None or self.status == "ANSWER"

    @property
    def waits(self) -> bool:
        """Return whether it is a queue or an IVR: both answer by themselves, and report bridges."""
        kind = self.part.kind
        return self.bridged is not None if kind is None else kind in (Kind.QUEUE, Kind.IVR)

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
        numbers = (extension, extension.rpartition("*")[2])
        return self.part.flow == "out" and (words.peer == extension or words.called in numbers)


def find_legs(state: CallState) -> list[FoldedLeg]:
    """All legs, in the order in which they began."""
    legs = [leg for part in state.parts for leg in _legs_of(part)]
    for leg in legs:
        if leg.part.kind is Kind.CONFERENCE and leg.was_answered and leg.answered is None:
            leg.answered = leg.rang  # at once; its answer event is usually not registered
        # Callbacks may overtake each other: no moment is later than the one that follows it.
        for at in (leg.ended, leg.answered):
            if at is not None:
                leg.answered = None if leg.answered is None else min(leg.answered, at)
                leg.rang = None if leg.rang is None else min(leg.rang, at)
    return sorted(legs, key=lambda leg: (leg.begin, part_order(leg.part)))


def _legs_of(part: PartFacts) -> list[FoldedLeg]:
    if part.id is None:
        pairs, answers = _pairs(part.dials, part.hangups), part.answers
    else:  # one leg, even if callbacks were repeated
        pairs = list(zip_longest(part.dials[:1], part.hangups[:1]))
        answers = part.answers[:1]
    legs = [_leg(part, dial, hangup) for dial, hangup in pairs]
    legs.sort(key=lambda leg: leg.begin)
    for answer in answers:
        _put_answer(legs, part, answer)
    for leg, later in pairwise(legs):
        leg.replaced = not leg.was_answered and leg.ended is None and later.rang is not None
    for record in part.records:
        _put_record(legs, part, record)
    return legs


def _leg(part: PartFacts, dial: int | None, hangup: Hangup | None) -> FoldedLeg:
    if hangup is None:
        return FoldedLeg(part, dial)
    return FoldedLeg(part, dial, None, hangup.at, hangup.status, hangup.bridged, hangup.recording)


def _pairs(
    all_dials: Sequence[int], all_hangups: Sequence[Hangup]
) -> list[tuple[int | None, Hangup | None]]:
    """Match dials with hangups: the first with the first and so on, unless one is missing."""
    dials, hangups = list(all_dials), list(all_hangups)
    pairs: list[tuple[int | None, Hangup | None]] = []
    while dials and hangups and not _alternate(dials, hangups):
        if len(dials) < len(hangups):
            # A dial belongs to the next hangup; the dial of any hangup before it is missing.
            dial = dials.pop(0)
            next_ = next((h for s in (0, DISORDER) for h in hangups if h.at >= dial - s), None)
            before = hangups.index(next_) if next_ else 0
            pairs += [(None, hangup) for hangup in hangups[:before]] + [(dial, next_)]
            del hangups[: before + (next_ is not None)]
        else:
            # A hangup belongs to the last dial before it; the hangup of any earlier dial is
            # missing, and a later dial's leg goes on.
            hangup = hangups.pop()
            last = next((d for s in (0, DISORDER) for d in dials[::-1] if d <= hangup.at + s), None)
            index = len(dials) if last is None else dials.index(last)
            pairs += [(last, hangup)] + [(dial, None) for dial in dials[index + 1 :]]
            del dials[index:]
    return pairs + list(zip_longest(dials, hangups))


def _alternate(dials: Sequence[int], hangups: Sequence[Hangup]) -> bool:
    """Return whether each hangup comes after its dial and before the next; the last may go on."""
    return len(dials) >= len(hangups) and all(
        dial - DISORDER <= hangup.at <= next_ + DISORDER
        for dial, hangup, next_ in zip(dials, hangups, (*dials[1:], inf), strict=False)
    )


def _put_answer(legs: list[FoldedLeg], part: PartFacts, answer: int) -> None:
    """Give the answer to the leg that fits best, or make a leg of it if none fits."""
    around = [leg for leg in legs if leg.spans(answer, DISORDER)]
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
        legs.append(FoldedLeg(part, answered=answer))


def _put_record(legs: list[FoldedLeg], part: PartFacts, record: RecordFacts) -> None:
    """Complete the leg that is most like the record, or make a leg of it."""
    free = [
        leg
        for leg in legs
        if not leg.has_record and (record.answered is None or leg.status not in UNANSWERED)
    ]
    if not free:
        free = [FoldedLeg(part, rang=record.began)]
        legs += free
    leg = min(free, key=lambda leg: abs(leg.begin - record.began))
    leg.has_record = True
    if leg.rang is None:
        leg.rang = record.began
    if leg.answered is None:
        leg.answered = record.answered
    if leg.ended is None:  # a record often says how a leg ended, and not when
        leg.ended, leg.status, leg.recorded = record.ended, record.status, True


def over(state: CallState) -> bool:
    """Return whether every leg has ended. The PBX makes a record only when a call is over."""
    if any(part.records for part in state.parts):
        return True
    if not all(part.hangups for part in state.parts):
        return False
    return all(leg.ended is not None or leg.replaced for leg in find_legs(state))
