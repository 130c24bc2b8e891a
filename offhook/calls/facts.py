"""The facts of a call: what its events say, each once, independent of their order. Pure.

`fold` collects facts and draws no conclusions. Moments are microseconds since 1970: when the event
occurred, if the PBX says so, else when the callback was received.

A call record (`EventType.CALL_RECORD`) is one leg according to the PBX's own records: an event with
extension, direction, caller and called as in a callback, `status` a CallStatus such as ANSWER or
NOANSWER, `occurred` when the leg began, and the parameters `answered` and `ended`, each an ISO 8601
moment with a zone, or absent if unknown.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
from msgspec.structs import astuple, replace

from offhook.call import Direction, Kind
from offhook.event import CallEvent, EventType

Closing = Literal["hangup", "silence", "records"]

MOST = 1000  # facts of a part, and parts of a call: more means that many calls share one CallID
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

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
    at: int
    status: str | None
    bridged: bool | None
    recording: str | None


class RecordFacts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    began: int
    answered: int | None
    ended: int | None
    status: str | None


class PartFacts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The facts of one extension's legs in one direction, or of one leg with an id. Sorted."""

    extension: str
    flow: Direction
    id: str | None
    kind: Kind | None
    words: Words  # from the first callback
    dials: tuple[int, ...] = ()
    answers: tuple[int, ...] = ()
    hangups: tuple[Hangup, ...] = ()
    records: tuple[RecordFacts, ...] = ()

    @property
    def facts(self) -> int:
        """Return the number of facts."""
        return len(self.dials) + len(self.answers) + len(self.hangups) + len(self.records)

    @property
    def first(self) -> int | None:
        """The moment of the first callback."""
        hangups = (self.hangups[0].at,) if self.hangups else ()
        return min((*self.dials[:1], *self.answers[:1], *hangups), default=None)


class CallState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The facts of a call, and which events about it have been made.

    Attributes:
        started, answered: whether call-started and call-answered have been made.
        closed: what ended the call, once call-ended has been made.
        told: digest of the last summary in call-ended or call-corrected.
        corrections: number of call-corrected events.
    """

    pbx: str
    id: str
    parts: tuple[PartFacts, ...] = ()
    started: bool = False
    answered: bool = False
    closed: Closing | None = None
    told: str | None = None
    corrections: int = 0


to_state = msgspec.json.Encoder().encode
from_state = msgspec.json.Decoder(CallState).decode


def fold(state: CallState | None, event: CallEvent, kind: Kind | None = None) -> CallState:
    """Add the facts of an event. Idempotent: an event that is in the state already adds nothing.

    Beyond `MOST` facts the state no longer grows: a monitoring check may use one CallID forever.

    Args:
        state: None before the first event of the call.
        event: a callback or a call record.
        kind: the kind of the event's extension, if known.

    Raises:
        ValueError: the event is neither.
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
    part = _with(PartFacts(extension, flow, event.leg, kind, words), event, words, kind)
    return replace(state, parts=tuple(sorted((*parts, part), key=part_order)))


def _with(part: PartFacts, event: CallEvent, words: Words, kind: Kind | None) -> PartFacts:
    dials, answers, hangups, records = part.dials, part.answers, part.hangups, part.records
    at, first = micros(event.occurred or event.received), part.first
    better = first is None or at < first
    if at == first:
        better = _order(words) < _order(part.words)
    if event.type in _DIALS:
        dials = _added(dials, at)
    elif event.type in _ANSWERS:
        answers = _added(answers, at)
    elif event.type is EventType.HANGUP:
        hangup = Hangup(at, event.status, event.bridged, event.recording)
        hangups = tuple(sorted({*hangups, hangup}, key=_order))
    elif event.type is EventType.CALL_RECORD:
        record = RecordFacts(at, _moment(event, "answered"), _moment(event, "ended"), event.status)
        records = tuple(sorted({*records, record}, key=_order))
        better = first is None and record == records[0]  # a callback's words win
        if part.records[:1] == records[:1]:
            better = better and _order(words) < _order(part.words)
    else:
        raise ValueError(f"{event.type} is neither a callback nor a call record")
    return PartFacts(
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


def part_order(part: PartFacts) -> tuple[str, str, str]:
    return part.extension, part.flow, part.id or ""


def _order(fact: msgspec.Struct) -> list[tuple[bool, Any]]:
    """The sort key of facts of one kind: unknown values come first."""
    return [(value is not None, value) for value in astuple(fact)]


def _moment(event: CallEvent, name: str) -> int | None:
    said = event.parameters.get(name)
    return micros(datetime.fromisoformat(said)) if said else None


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // _MICROSECOND
