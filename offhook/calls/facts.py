"""The facts of a call: what its events say, each once, independent of their order. Pure.

`fold` collects facts and draws no conclusions. Moments are microseconds since 1970: when the event
occurred, if the PBX says so, else when the callback was received.

A call record (`EventType.CALL_RECORD`) is one leg according to the PBX's own records: an event with
extension, direction, caller and called as in a callback, `status` a CallStatus such as ANSWER or
NOANSWER, `occurred` when the leg began, and the parameters `answered` and `ended`, each an ISO 8601
moment with a zone, or absent if unknown.
"""

from bisect import insort
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import msgspec
from msgspec.structs import astuple, replace

from offhook.call import Direction, Kind
from offhook.event import CallEvent, EventType

Closing = Literal["hangup", "silence", "records"]

MOST = 400  # facts of a call: with more, putting them together would delay other calls
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

T = TypeVar("T")

_DIALS = (EventType.DIAL_IN, EventType.DIAL_OUT)
_ANSWERS = (EventType.ANSWER_IN, EventType.ANSWER_OUT)
_MICROSECOND = timedelta(microseconds=1)


class Words(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who called whom, according to the callbacks of a leg. `peer`: the other extension."""

    caller: str | None
    name: str | None
    peer: str | None
    called: str | None
    did: str | None


class Hangup(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`talked`: microseconds of talk, if the PBX says so."""

    at: int
    status: str | None
    bridged: bool | None
    recording: str | None
    talked: int | None = None


class RecordFacts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    began: int
    answered: int | None
    ended: int | None
    status: str | None


class PartFacts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The facts of one extension's legs in one direction, or of one leg with an id. Sorted.

    Attributes:
        words: from the first callback.
        all_events: whether all event types are registered on the extension.
    """

    extension: str
    flow: Direction
    id: str | None
    kind: Kind | None
    words: Words
    dials: tuple[int, ...] = ()
    answers: tuple[int, ...] = ()
    hangups: tuple[Hangup, ...] = ()
    records: tuple[RecordFacts, ...] = ()
    all_events: bool = False

    @property
    def facts(self) -> int:
        """Return the number of facts."""
        return len(self.dials) + len(self.answers) + len(self.hangups) + len(self.records)

    @property
    def first(self) -> int | None:
        """The moment of the first callback."""
        moments = self.dials[:1] + self.answers[:1]
        if self.hangups:
            moments += (self.hangups[0].at,)
        return min(moments, default=None)

    @property
    def last(self) -> int:
        """The moment of the last fact."""
        moments = self.dials[-1:] + self.answers[-1:]
        if self.hangups:
            moments += (self.hangups[-1].at,)
        if self.records:
            moments += tuple([record.ended or record.began for record in self.records])
        return max(moments)


class CallState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The facts of a call, and which events about it have been made.

    Attributes:
        started, answered: whether call-started and call-answered have been made.
        closed: what ended the call, once call-ended has been made.
        told: digest of the last summary in call-ended or call-corrected.
        corrections: number of call-corrected events.
        again: number of later calls with the same CallID. They have states of their own.
        left_out: number of events beyond `MOST`.
    """

    pbx: str
    id: str
    parts: tuple[PartFacts, ...] = ()
    started: bool = False
    answered: bool = False
    closed: Closing | None = None
    told: str | None = None
    corrections: int = 0
    again: int = 0
    left_out: int = 0

    @property
    def last(self) -> int:
        """The moment of the last fact."""
        return max([part.last for part in self.parts])


to_state = msgspec.json.Encoder().encode
from_state = msgspec.json.Decoder(CallState).decode


def fold(
    state: CallState | None,
    event: CallEvent,
    kind: Kind | None = None,
    *,
    all_events: bool = False,
) -> CallState:
    """Add the facts of an event. Idempotent: an event that is in the state already adds nothing.

    Events beyond `MOST` facts are only counted: a monitoring check may use one CallID forever.

    Args:
        state: None before the first event of the call.
        event: a callback or a call record.
        kind: the kind of the event's extension, if known.
        all_events: whether all event types are known to be registered on that extension.

    Raises:
        ValueError: the event is neither.
    """
    if state is None:
        state = CallState(event.pbx, event.call_id)
    extension, caller, called = event.extension, event.caller, event.called
    flow = flow_of(event)
    peer = called.extension if flow == "out" else caller.extension
    words = Words(caller.number, caller.name, peer, called.number, called.did)
    parts = list(state.parts)
    for index, part in enumerate(parts):
        if part.extension == extension and part.flow == flow and part.id == event.leg:
            parts[index] = _with(part, event, words, kind, all_events=all_events)
            if parts[index] == part:
                return state
            break
    else:
        new = PartFacts(extension, flow, event.leg, kind, words)
        insort(parts, _with(new, event, words, kind, all_events=all_events), key=part_order)
    if sum([part.facts for part in parts]) > MOST:
        return replace(state, left_out=state.left_out + 1)
    return replace(state, parts=tuple(parts))


def flow_of(event: CallEvent) -> Direction:
    """Return whether the event's extension was called or calls."""
    return event.direction or ("out" if event.caller.extension == event.extension else "in")


def _with(
    part: PartFacts, event: CallEvent, words: Words, kind: Kind | None, *, all_events: bool
) -> PartFacts:
    dials, answers, hangups, records = part.dials, part.answers, part.hangups, part.records
    at, first = micros(event.occurred or event.received), part.first
    better = first is None or at < first
    if at == first:
        better = _known_first(words) < _known_first(part.words)
    if event.type in _DIALS:
        dials = _added(dials, at, int)
    elif event.type in _ANSWERS:
        answers = _added(answers, at, int)
    elif event.type is EventType.HANGUP:
        hangup = Hangup(at, event.status, event.bridged, event.recording, event.talked)
        hangups = _added(hangups, hangup, _order)
    elif event.type is EventType.CALL_RECORD:
        record = RecordFacts(at, _moment(event, "answered"), _moment(event, "ended"), event.status)
        records = _added(records, record, _order)
        better = first is None and record == records[0]  # a callback's words win
        if part.records[:1] == records[:1]:
            better = better and _known_first(words) < _known_first(part.words)
    else:
        raise ValueError(f"{event.type} is neither a callback nor a call record")
    return PartFacts(
        part.extension,
        part.flow,
        part.id,
        part.kind if kind is None else kind if part.kind is None else min(part.kind, kind),
        words if better else part.words,
        dials,
        answers,
        hangups,
        records,
        all_events or part.all_events,
    )


def _added(facts: tuple[T, ...], fact: T, key: Callable[[T], Any]) -> tuple[T, ...]:
    if not facts:
        return (fact,)
    if fact in facts:
        return facts
    added = list(facts)
    insort(added, fact, key=key)
    return tuple(added)


def part_order(part: PartFacts) -> tuple[str, str, str]:
    return part.extension, part.flow, part.id or ""


def _order(fact: msgspec.Struct) -> list[tuple[bool, Any]]:
    """The sort key of facts of one kind: unknown values come first."""
    return [(value is not None, value) for value in astuple(fact)]


def _known_first(words: Words) -> list[tuple[bool, Any]]:
    """The sort key of words: known values come first."""
    return [(value is None, value) for value in astuple(words)]


def _moment(event: CallEvent, name: str) -> int | None:
    said = event.parameters.get(name)
    return micros(datetime.fromisoformat(said)) if said else None


def micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(at: int) -> datetime:
    return _EPOCH + at * _MICROSECOND
