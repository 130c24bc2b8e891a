"""`summarize`: who called whom, who answered, how long, and how the call ended. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from offhook.call import Call, Direction, Gap, Kind, Leg, Outcome, Party
from offhook.calls.facts import CallState, from_micros
from offhook.calls.inside import is_short
from offhook.calls.legs import UNANSWERED, FoldedLeg, short
from offhook.calls.roles import find_legs
from offhook.phone_number import e164

_AT_ONCE = 1_000_000  # microseconds
_GAPS = tuple(Gap)


def summarize(state: CallState, region: str | None) -> Call:
    """Return the call as it is known now, with its outcome if it is closed.

    Args:
        region: the country whose numbers are dialled without a country code, such as GB.
    """
    return summarize_legs(state, find_legs(state), region)


def summarize_legs(state: CallState, all_legs: Sequence[FoldedLeg], region: str | None) -> Call:
    """`summarize`, from the legs that `find_legs` finds in the state."""
    legs = [leg for leg in all_legs if not leg.stray]
    closed = state.closed is not None
    root = find_root(legs)
    direction = find_direction(root, legs)
    talkers = find_talkers(legs)
    answered = [leg for leg in talkers if leg.was_answered]
    people = [leg for leg in answered if not _may_be_ivr(leg)] or answered
    bridged = not answered and any(leg.bridged for leg in legs)
    first = _first_answered(people, direction) if people else None
    ended = _last_moment(legs) if closed else None
    caller, called = _parties(direction, root, legs, region)
    gaps = [gap for leg in all_legs for gap in _gaps(leg, closed=closed)]
    gaps += [Gap.ANSWER] if bridged else []
    gaps += [Gap.KIND] if any(map(_may_be_ivr, answered)) else []
    gaps += [Gap.DIRECTION] if direction != "internal" and _may_be_internal(root) else []
    gaps += [Gap.EVENTS] if state.left_out else []
    gaps += [Gap.LATE] if state.corrections else []
    return Call(
        id=state.id,
        pbx=state.pbx,
        direction=direction,
        caller=caller,
        called=called,
        started=from_micros(legs[0].begin),
        answered=_datetime(first.answered) if first else None,
        ended=_datetime(ended),
        answered_by=_answered_by(first, direction, called),
        ring_seconds=_ring(legs, first, ended, answered=bool(first or bridged)),
        talk_seconds=None if bridged else _talk(people, closed=closed),
        outcome=_outcome(legs, talkers, answered=bool(first or bridged)) if closed else None,
        gaps=tuple([gap for gap in _GAPS if gap in gaps]),
        closed_by=state.closed,
        recovered=not any(part.dials or part.answers or part.hangups for part in state.parts),
        recording=next((leg.recording for leg in legs if leg.recording), None),
        left_out=state.left_out,
        legs=tuple(map(_public, all_legs)),
    )


def _last_moment(legs: Sequence[FoldedLeg]) -> int:
    moments = [at for leg in legs for at in (leg.rang, leg.answered, leg.ended)]
    return max([at for at in moments if at is not None])


def find_talkers(legs: Iterable[FoldedLeg]) -> list[FoldedLeg]:
    """The legs in which an answer is a person's, or that of the number outside.

    A queue answers its caller at once; that does not count as a person.
    """
    rooms = {leg.part.extension for leg in legs if leg.room and leg.part.flow == "in"}
    numbers = rooms | {short(room) for room in rooms}
    return [
        leg
        for leg in legs
        if not leg.room
        and not (
            leg.part.flow == "out"
            and (leg.part.words.peer in rooms or leg.part.words.called in numbers)
        )
    ]


def _may_be_ivr(leg: FoldedLeg) -> bool:
    """Return whether an answered leg of unknown kind may be that of an IVR.

    An IVR answers at once, which takes a person longer. A PBX whose legs have ids reports `Bridged`
    for its IVRs.
    """
    if leg.part.kind is not None or leg.part.id is not None or leg.part.flow == "out":
        return False
    return leg.answered is None or leg.rang is None or leg.answered - leg.rang < _AT_ONCE


def _public(leg: FoldedLeg) -> Leg:
    part = leg.part
    return Leg(
        extension=part.extension,
        kind=part.kind,
        direction="out" if part.flow == "out" else "in",
        rang=_datetime(leg.rang),
        answered=_datetime(leg.answered),
        ended=_datetime(leg.ended),
        status=leg.status,
        id=part.id,
    )


def find_root(legs: Sequence[FoldedLeg]) -> FoldedLeg:
    """The leg that began the call: it knows best who called whom."""
    called = {leg.part.extension for leg in legs if leg.part.flow == "in"}

    def rank(leg: FoldedLeg) -> tuple[int, bool]:
        part = leg.part
        # An extension that was called before only passes the call on.
        origin = part.extension if part.flow == "out" else part.words.peer
        return 0 if origin is None else 1 + (origin in called), part.flow == "in"

    return min(legs, key=rank)


def find_direction(root: FoldedLeg, legs: Sequence[FoldedLeg]) -> Direction:
    words = root.part.words
    if root.part.flow == "in":
        return "internal" if words.peer and not words.did else "in"
    inside = (
        words.peer
        or "*" in (words.called or "")
        or any(root.calls(leg.part.extension) for leg in legs)
    )
    return "internal" if inside else "out"


def _may_be_internal(root: FoldedLeg) -> bool:
    """Return whether it was called by or calls a short number that may be an extension."""
    words = root.part.words
    number = words.called if root.part.flow == "out" else words.caller
    return words.did is None and is_short(number)


def _parties(
    direction: Direction, root: FoldedLeg, legs: Sequence[FoldedLeg], region: str | None
) -> tuple[Party, Party]:
    words = root.part.words
    rang = next((leg.part.extension for leg in legs if leg.part.flow == "in"), None)
    if direction == "in":
        did = words.did or next((leg.part.words.did for leg in legs if leg.part.words.did), None)
        number = did or words.called
        return (
            Party(number=words.caller, name=words.name, e164=e164(words.caller, region)),
            Party(number=number, extension=rang, did=did, e164=e164(number, region)),
        )
    own, other = root.part.extension, words.peer
    if root.part.flow == "in":
        own, other = words.peer or own, root.part.extension
    caller = Party(number=words.caller, name=words.name, extension=own)
    if direction == "internal":
        return caller, Party(number=words.called, extension=rang or other)
    return caller, Party(number=words.called, e164=e164(words.called, region))


def _first_answered(answered: Sequence[FoldedLeg], direction: Direction) -> FoldedLeg:
    if direction == "internal":  # prefer the called party
        answered = [leg for leg in answered if leg.part.flow == "in"] or answered

    def order(leg: FoldedLeg) -> tuple[bool, int, int]:
        """The answer, or the latest moment at which it can have been; a lone hangup comes last."""
        moments = (leg.answered, leg.ended, leg.begin)
        latest = next(at for at in moments if at is not None)
        return leg.answered is None and leg.rang is None, latest, leg.begin

    return min(answered, key=order)


def _answered_by(first: FoldedLeg | None, direction: Direction, called: Party) -> str | None:
    if first is None:
        return None
    if direction == "internal" and first.part.flow == "out":
        return called.extension
    return first.part.extension


def _gaps(leg: FoldedLeg, *, closed: bool) -> Iterable[Gap]:
    if leg.rang is None:
        yield Gap.DIAL
    if leg.ended is None and (closed or leg.replaced):
        yield Gap.HANGUP
    if leg.room or leg.stray or leg.elsewhere:
        return
    if leg.was_answered and leg.answered is None:
        yield Gap.ANSWER
    if has_unknown_end(leg):
        yield Gap.STATUS


def has_unknown_end(leg: FoldedLeg) -> bool:
    """Return whether its hangup does not say whether it was answered."""
    answered = leg.was_answered or leg.elsewhere
    return leg.ended is not None and not answered and leg.status not in UNANSWERED


def _ring(
    legs: Sequence[FoldedLeg], first: FoldedLeg | None, ended: int | None, *, answered: bool
) -> float | None:
    """Seconds until the first answer, or until the end; 0 while neither has come."""
    if answered:
        until = first.answered if first else None
    elif ended is None:
        return 0.0
    else:
        known = all(leg.ended is not None or leg.replaced for leg in legs)
        until = ended if known else None
    # A room without its dial was called before the phones that it called, perhaps long before.
    if until is None or legs[0].rang is None or any(leg.room and leg.rang is None for leg in legs):
        return None
    return (until - legs[0].begin) / 1e6


def _talk(answered: Sequence[FoldedLeg], *, closed: bool) -> float | None:
    """Seconds in which at least one of these legs was answered."""
    spans = []
    for leg in answered:
        if leg.answered is None or (leg.ended is None and closed):
            return None
        if leg.ended is not None:
            spans.append((leg.answered, leg.ended))
    total = until = 0
    for begin, end in sorted(spans):
        total += max(0, end - max(begin, until))
        until = max(until, end)
    return total / 1e6


def _outcome(legs: Sequence[FoldedLeg], talkers: Sequence[FoldedLeg], *, answered: bool) -> Outcome:
    if answered:
        return Outcome.ANSWERED
    if any(leg.part.kind is Kind.QUEUE for leg in legs):
        return Outcome.MISSED  # whatever the agents' phones report
    statuses = {leg.status for leg in talkers}
    return next((UNANSWERED[each] for each in UNANSWERED if each in statuses), Outcome.MISSED)


def _datetime(at: int | None) -> datetime | None:
    return None if at is None else from_micros(at)
