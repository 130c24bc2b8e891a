"""A call, folded from its events. Pure: the same events make the same call in whatever order.

`fold` keeps facts and concludes nothing. Who answered, and how a call ended, follows from all the
facts there are (`summarize`); `tell` makes the events that say so, each once. Moments are
microseconds since 1970: the PBX's own where it says them, else when the callback was received.

A call record (`EventType.CALL_RECORD`) is one leg as the PBX's own records have it: an event with
extension, direction, caller and called as in a callback, `status` a CallStatus such as ANSWER or
NOANSWER, `occurred` when the leg began, and in its parameters `answered` and `ended`, each an ISO
8601 moment with a zone, or left out when it is not known.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import pairwise, zip_longest
from math import inf
from typing import Literal

import msgspec
from msgspec.structs import astuple, replace

from offhook.call import Call, Direction, Gap, Kind, Leg, Outcome, Party
from offhook.event import CallEvent, EventType
from offhook.number import e164

Closing = Literal["hangup", "silence", "records"]

DISORDER = 2_000_000  # microseconds by which callbacks may overtake each other
MOST = 1000  # facts of a part, and parts of a call: beyond them many calls must have one CallID

# What the hangups of the phones that nobody answered say of the call; the first that one says.
_UNANSWERED = {
    "NOANSWER": Outcome.MISSED,
    "CANCEL": Outcome.CANCELLED,
    "BUSY": Outcome.BUSY,
    "CHANUNAVAIL": Outcome.UNREACHABLE,
    "CONGESTION": Outcome.FAILED,
}
_DIALS = (EventType.DIAL_IN, EventType.DIAL_OUT)
_ANSWERS = (EventType.ANSWER_IN, EventType.ANSWER_OUT)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Words(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the callbacks of a leg say. `peer`: the extension on the other side."""

    caller: str | None
    name: str | None
    peer: str | None
    called: str | None
    did: str | None


class Hangup(msgspec.Struct, frozen=True, array_like=True, gc=False):
    at: int
    status: str | None
    bridged: bool | None
    recording: str | None


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    began: int
    answered: int | None
    ended: int | None
    status: str | None


class Part(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The facts of an extension's legs in one direction, or of one leg that has an id. Sorted."""

    extension: str
    flow: Direction
    id: str | None
    kind: Kind | None
    words: Words  # of the first callback
    dials: tuple[int, ...] = ()
    answers: tuple[int, ...] = ()
    hangups: tuple[Hangup, ...] = ()
    records: tuple[Record, ...] = ()

    @property
    def facts(self) -> int:
        """How many there are."""
        return len(self.dials) + len(self.answers) + len(self.hangups) + len(self.records)

    @property
    def first(self) -> int | None:
        """When the first callback came."""
        hangups = (self.hangups[0].at,) if self.hangups else ()
        return min((*self.dials[:1], *self.answers[:1], *hangups), default=None)


class CallState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The facts of a call, and what was told of it.

    Attributes:
        started, answered: call-started and call-answered were told.
        closed: what ended it, once call-ended was told.
        told: a digest of the summary that was told last.
        corrections: how often call-corrected was told.
    """

    pbx: str
    id: str
    parts: tuple[Part, ...] = ()
    started: bool = False
    answered: bool = False
    closed: Closing | None = None
    told: str | None = None
    corrections: int = 0


to_state = msgspec.json.Encoder().encode
from_state = msgspec.json.Decoder(CallState).decode


def fold(state: CallState | None, event: CallEvent, kind: Kind | None = None) -> CallState:
    """The state with the facts of an event. An event that it has already changes nothing, and the
    state itself is returned when it has `MOST`: who always sends the same CallID, as a check that
    runs every minute may, must not make it grow for ever.

    Args:
        state: None before the first event of the call.
        event: a callback or a call record.
        kind: what the event's extension is; None when nobody has said so.

    Raises:
        ValueError: it is neither.
    """
    if state is None:
        state = CallState(event.pbx, event.call_id)
    extension, caller, called = event.extension, event.caller, event.called
    flow = event.direction or ("out" if caller.extension == extension else "in")
    peer = called.extension if flow == "out" else caller.extension
    words = Words(caller.number, caller.name, peer, called.number, called.did)
    parts = state.parts
    for index, part in enumerate(parts):
        if part.extension == extension and part.flow == flow and part.id == event.leg:
            if part.facts >= MOST:
                return state
            changed = _with(part, event, words, kind)
            return replace(state, parts=(*parts[:index], changed, *parts[index + 1 :]))
    if len(parts) >= MOST:
        return state
    part = _with(Part(extension, flow, event.leg, kind, words), event, words, kind)
    return replace(state, parts=tuple(sorted((*parts, part), key=_part_order)))


def _with(part: Part, event: CallEvent, words: Words, kind: Kind | None) -> Part:
    dials, answers, hangups, records = part.dials, part.answers, part.hangups, part.records
    at, first = _micros(event.occurred or event.received), part.first
    better = first is None or at < first
    if at == first:
        better = _words_order(words) < _words_order(part.words)
    if event.type in _DIALS:
        dials = _added(dials, at)
    elif event.type in _ANSWERS:
        answers = _added(answers, at)
    elif event.type is EventType.HANGUP:
        hangup = Hangup(at, event.status, event.bridged, event.recording)
        hangups = tuple(sorted({*hangups, hangup}, key=_hangup_order))
    elif event.type is EventType.CALL_RECORD:
        record = Record(at, _moment(event, "answered"), _moment(event, "ended"), event.status)
        records = tuple(sorted({*records, record}, key=_record_order))
        better = first is None and record == records[0]  # a callback's words are better
        if part.records[:1] == records[:1]:
            better = better and _words_order(words) < _words_order(part.words)
    else:
        raise ValueError(f"{event.type} is neither a callback nor a call record")
    return Part(
        part.extension,
        part.flow,
        part.id,
        min(filter(None, (part.kind, kind)), default=None),
        words if better else part.words,
        dials,
        answers,
        hangups,
        records,
    )


def _added(moments: tuple[int, ...], at: int) -> tuple[int, ...]:
    return moments if at in moments else tuple(sorted((*moments, at)))


def _part_order(part: Part) -> tuple[str, str, str]:
    return part.extension, part.flow, part.id or ""


def _words_order(words: Words) -> list[str]:
    return [word or "" for word in astuple(words)]


def _hangup_order(hangup: Hangup) -> tuple[int, str, str, str]:
    return hangup.at, hangup.status or "", str(hangup.bridged), hangup.recording or ""


def _record_order(record: Record) -> tuple[int, int, int, str]:
    return record.began, record.answered or 0, record.ended or 0, record.status or ""


def _moment(event: CallEvent, name: str) -> int | None:
    said = event.parameters.get(name)
    return _micros(datetime.fromisoformat(said)) if said else None


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _datetime(at: int | None) -> datetime | None:
    return None if at is None else _EPOCH + timedelta(microseconds=at)


@dataclass(slots=True)
class _Leg:
    """One time that an extension was in the call.

    Attributes:
        recorded: its end is known from the PBX's records alone.
        replaced: it rang and has no hangup, but its extension was called again, so it had one.
    """

    part: Part
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
        """Is it a queue or an IVR? They answer by themselves, and only they tell of a bridge."""
        kind = self.part.kind
        return self.bridged is not None if kind is None else kind in (Kind.QUEUE, Kind.IVR)

    def spans(self, at: int, slack: int) -> bool:
        """Can this have been in the leg?"""
        began, ended = self.rang is None or self.rang <= at + slack, self.ended
        return began and (ended is None or at <= ended + slack)

    def calls(self, extension: str) -> bool:
        """Is it the leg of one who calls this extension, by its long or its short number?"""
        words = self.part.words
        numbers = (extension, extension.rpartition("*")[2])
        return self.part.flow == "out" and (words.peer == extension or words.called in numbers)


def _legs(state: CallState) -> list[_Leg]:
    """All legs, in the order in which they began."""
    legs = [leg for part in state.parts for leg in _legs_of(part)]
    for leg in legs:
        if leg.part.kind is Kind.CONFERENCE and leg.was_answered and leg.answered is None:
            leg.answered = leg.rang  # it answers at once, and its answer is usually not registered
        # What was overtaken by what it led to did not come after that.
        for at in (leg.ended, leg.answered):
            if at is not None:
                leg.answered = None if leg.answered is None else min(leg.answered, at)
                leg.rang = None if leg.rang is None else min(leg.rang, at)
    return sorted(legs, key=lambda leg: (leg.begin, _part_order(leg.part)))


def _legs_of(part: Part) -> list[_Leg]:
    if part.id is None:
        pairs, answers = _pairs(part.dials, part.hangups), part.answers
    else:  # whatever was repeated, it is one leg
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


def _leg(part: Part, dial: int | None, hangup: Hangup | None) -> _Leg:
    if hangup is None:
        return _Leg(part, dial)
    return _Leg(part, dial, None, hangup.at, hangup.status, hangup.bridged, hangup.recording)


def _pairs(
    all_dials: Sequence[int], all_hangups: Sequence[Hangup]
) -> list[tuple[int | None, Hangup | None]]:
    """Which hangup ended what a dial began: the first the first and so on, if none is lost."""
    dials, hangups = list(all_dials), list(all_hangups)
    pairs: list[tuple[int | None, Hangup | None]] = []
    while dials and hangups and not _alternate(dials, hangups):
        if len(dials) < len(hangups):
            # A dial's is the next hangup; one before it is of a leg whose dial is lost.
            dial = dials.pop(0)
            next_ = next((h for s in (0, DISORDER) for h in hangups if h.at >= dial - s), None)
            before = hangups.index(next_) if next_ else 0
            pairs += [(None, hangup) for hangup in hangups[:before]] + [(dial, next_)]
            del hangups[: before + (next_ is not None)]
        else:
            # A hangup's is the last dial before it; one before that is of a leg whose hangup is
            # lost, one after it of a leg that goes on.
            hangup = hangups.pop()
            last = next((d for s in (0, DISORDER) for d in dials[::-1] if d <= hangup.at + s), None)
            index = len(dials) if last is None else dials.index(last)
            pairs += [(last, hangup)] + [(dial, None) for dial in dials[index + 1 :]]
            del dials[index:]
    return pairs + list(zip_longest(dials, hangups))


def _alternate(dials: Sequence[int], hangups: Sequence[Hangup]) -> bool:
    """Does each hangup come after its dial and before the next one, if one more leg may go on?"""
    return len(dials) >= len(hangups) and all(
        dial - DISORDER <= hangup.at <= next_ + DISORDER
        for dial, hangup, next_ in zip(dials, hangups, (*dials[1:], inf), strict=False)
    )


def _put_answer(legs: list[_Leg], part: Part, answer: int) -> None:
    """Give it to the leg that it fits best; if it fits none, it is all that is known of a leg."""
    around = [leg for leg in legs if leg.spans(answer, DISORDER)]
    free = [leg for leg in around if leg.answered is None]
    likely = (
        [leg for leg in free if leg.status == "ANSWER"]
        or [leg for leg in free if leg.status not in _UNANSWERED]
        or [leg for leg in free if leg.spans(answer, 0)]
    )
    if likely:
        leg = max(likely, key=lambda leg: (leg.spans(answer, 0), leg.begin))
        leg.answered = answer
    elif not any(leg.answered is not None for leg in around):  # else it is a repeat
        legs.append(_Leg(part, answered=answer))


def _put_record(legs: list[_Leg], part: Part, record: Record) -> None:
    """Let it say what is not known of the leg that it is most like, or be a leg itself."""
    free = [
        leg
        for leg in legs
        if not leg.has_record and (record.answered is None or leg.status not in _UNANSWERED)
    ]
    if not free:
        free = [_Leg(part, rang=record.began)]
        legs += free
    leg = min(free, key=lambda leg: abs(leg.begin - record.began))
    leg.has_record = True
    if leg.rang is None:
        leg.rang = record.began
    if leg.answered is None:
        leg.answered = record.answered
    if leg.ended is None:  # how it ended is often all that a record says of its end
        leg.ended, leg.status, leg.recorded = record.ended, record.status, True


def over(state: CallState) -> bool:
    """Has every leg ended, so that the settle window runs? What the PBX recorded is over."""
    if any(part.records for part in state.parts):
        return True
    if not all(part.hangups for part in state.parts):
        return False
    return all(leg.ended is not None or leg.replaced for leg in _legs(state))


def summarize(state: CallState, region: str | None) -> Call:
    """The call as it is known by now; with its outcome when it is closed.

    Args:
        region: the country whose numbers are dialled without a prefix, such as GB.
    """
    legs = _legs(state)
    closed = state.closed is not None
    root = _root(legs)
    direction = _direction(root, legs)
    rooms = [leg.part.extension for leg in legs if leg.waits and leg.part.flow == "in"]
    # One who calls a queue is answered by the queue, which says nothing.
    talkers = [leg for leg in legs if not leg.waits and not any(leg.calls(room) for room in rooms)]
    answered = [leg for leg in talkers if leg.was_answered]
    bridged = not answered and any(leg.bridged for leg in legs)
    first = _first_answered(answered, direction)
    started = legs[0].begin
    ended = max(at for leg in legs for at in (leg.rang, leg.answered, leg.ended) if at is not None)
    caller, called = _parties(direction, root, legs, region)
    gaps = {gap for leg in legs for gap in _gaps(leg, closed=closed)}
    if bridged:
        gaps.add(Gap.ANSWER)
    if state.corrections:
        gaps.add(Gap.LATE)
    return Call(
        id=state.id,
        pbx=state.pbx,
        direction=direction,
        caller=caller,
        called=called,
        started=_EPOCH + timedelta(microseconds=started),
        answered=_datetime(first.answered) if first else None,
        ended=_datetime(ended) if closed else None,
        answered_by=_answered_by(first, direction, called),
        ring_seconds=_ring(legs, first, ended, answered=bool(first or bridged), closed=closed),
        talk_seconds=None if bridged else _talk(answered, closed=closed),
        outcome=_outcome(legs, talkers, answered=bool(first or bridged)) if closed else None,
        gaps=tuple(gap for gap in Gap if gap in gaps),
        closed_by=state.closed,
        recovered=all(part.first is None for part in state.parts),
        recording=next((leg.recording for leg in legs if leg.recording), None),
        legs=tuple(map(_public, legs)),
    )


def _public(leg: _Leg) -> Leg:
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


def _root(legs: Sequence[_Leg]) -> _Leg:
    """The leg with which the call began: it tells best who called whom."""
    called = {leg.part.extension for leg in legs if leg.part.flow == "in"}

    def rank(leg: _Leg) -> tuple[int, bool]:
        part = leg.part
        # Whom it is from: an extension that was itself called before only passes the call on.
        origin = part.extension if part.flow == "out" else part.words.peer
        return 0 if origin is None else 1 + (origin in called), part.flow == "in"

    return min(legs, key=rank)


def _direction(root: _Leg, legs: Sequence[_Leg]) -> Direction:
    words = root.part.words
    if root.part.flow == "in":
        return "internal" if words.peer and not words.did else "in"
    inside = (
        words.peer
        or "*" in (words.called or "")
        or any(root.calls(leg.part.extension) for leg in legs)
    )
    return "internal" if inside else "out"


def _parties(
    direction: Direction, root: _Leg, legs: Sequence[_Leg], region: str | None
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


def _first_answered(answered: Sequence[_Leg], direction: Direction) -> _Leg | None:
    if direction == "internal":  # the one who was called, not the one who called
        answered = [leg for leg in answered if leg.part.flow == "in"] or answered
    return min(
        answered,
        key=lambda leg: leg.begin if leg.answered is None else leg.answered,
        default=None,
    )


def _answered_by(first: _Leg | None, direction: Direction, called: Party) -> str | None:
    if first is None:
        return None
    if direction == "internal" and first.part.flow == "out":
        return called.extension
    return first.part.extension


def _gaps(leg: _Leg, *, closed: bool) -> Iterable[Gap]:
    if leg.rang is None:
        yield Gap.DIAL
    if leg.ended is None and (closed or leg.replaced):
        yield Gap.HANGUP
    if leg.waits:
        return
    if leg.status == "ANSWER" and leg.answered is None:
        yield Gap.ANSWER
    if leg.ended is not None and not leg.was_answered and leg.status not in _UNANSWERED:
        yield Gap.STATUS


def _ring(
    legs: Sequence[_Leg], first: _Leg | None, ended: int, *, answered: bool, closed: bool
) -> float | None:
    if answered:
        until = first.answered if first else None
    elif not closed:
        return 0.0
    else:
        known = all(leg.ended is not None or leg.replaced for leg in legs)
        until = ended if known else None
    if until is None or legs[0].rang is None:
        return None
    return (until - legs[0].begin) / 1e6


def _talk(answered: Sequence[_Leg], *, closed: bool) -> float | None:
    """How long at least one of these legs was answered."""
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


def _outcome(legs: Sequence[_Leg], talkers: Sequence[_Leg], *, answered: bool) -> Outcome:
    if answered:
        return Outcome.ANSWERED
    if any(leg.part.kind is Kind.QUEUE for leg in legs):
        return Outcome.MISSED  # whatever became of the phones of single agents
    statuses = {leg.status for leg in talkers}
    return next((_UNANSWERED[each] for each in _UNANSWERED if each in statuses), Outcome.MISSED)


def tell(
    state: CallState, region: str | None, now: datetime, closing: Closing | None
) -> tuple[CallState, list[CallEvent]]:
    """The events that are due and were not told, and the state that has told them.

    Args:
        region: as `summarize` takes it.
        now: when they are told.
        closing: what ends the call now: `hangup` when the settle window is over, `silence` when
            nothing was heard for too long; None while it goes on. It may be closed more than once:
            if by then more is known than was told, call-corrected says so.
    """
    told: list[tuple[EventType, Call]] = []
    if not state.started:
        told.append((EventType.CALL_STARTED, summarize(state, region)))
        state = replace(state, started=True)
    if not state.answered and not state.closed and any(part.answers for part in state.parts):
        call = summarize(state, region)
        if _somebody_answered(call):
            told.append((EventType.CALL_ANSWERED, call))
            state = replace(state, answered=True)
    if closing is not None:
        state, ending = _close(state, region, closing)
        told += ending
    return state, [_event(type_, call, now, state.corrections) for type_, call in told]


def _close(
    state: CallState, region: str | None, closing: Closing
) -> tuple[CallState, list[tuple[EventType, Call]]]:
    if closing == "hangup" and any(leg.recorded for leg in _legs(state)):
        closing = "records"
    # Neither what closed it, nor that it is a correction, nor a region that was set since, is news.
    alike = summarize(replace(state, closed="hangup", corrections=0), None)
    digest = blake2b(msgspec.json.encode(alike), digest_size=8).hexdigest()
    if digest == state.told:
        return state, []
    closed = replace(state, closed=closing, told=digest)
    if state.closed is not None:
        closed = replace(closed, corrections=state.corrections + 1)
        return closed, [(EventType.CALL_CORRECTED, summarize(closed, region))]
    told, call = [], summarize(closed, region)
    if call.outcome is Outcome.ANSWERED and not state.answered:  # only a hangup said so
        closed = replace(closed, answered=True)
        told.append((EventType.CALL_ANSWERED, summarize(state, region)))
    told.append((EventType.CALL_ENDED, call))
    if call.outcome is not Outcome.ANSWERED and call.direction != "out":
        told.append((EventType.MISSED_CALL, call))
    return closed, told


def _somebody_answered(call: Call) -> bool:
    """Is it certain by now? That one who calls a colleague was answered may mean a queue."""
    if call.direction != "internal":
        return call.answered is not None
    return call.answered is not None and any(
        leg.direction == "in" and leg.answered == call.answered for leg in call.legs
    )


def _event(type_: EventType, call: Call, now: datetime, corrections: int) -> CallEvent:
    return CallEvent(
        id=_event_id(type_, call, corrections),
        pbx=call.pbx,
        extension=call.answered_by or next(iter(call.extensions)),
        type=type_,
        call_id=call.id,
        direction=call.direction,
        caller=call.caller,
        called=call.called,
        status=None,
        received=now,
        parameters={},
        recording=call.recording,
        summary=call,
    )


def _event_id(type_: EventType, call: Call, corrections: int) -> str:
    """Shaped as `new_event_id` shapes it; the same whenever the same thing is told."""
    name = f"{call.pbx}/{call.id}/{type_}/{corrections}".encode()
    began = _micros(call.started) // 1000
    return f"{began:012x}{blake2b(name, digest_size=10).hexdigest()}"
