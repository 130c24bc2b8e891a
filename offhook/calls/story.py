"""`tell`: the events that say what became of a call, each once. Pure."""

from datetime import datetime
from hashlib import blake2b

import msgspec
from msgspec.structs import replace

from offhook.call import Call, Outcome
from offhook.calls.facts import CallState, Closing, micros
from offhook.calls.legs import find_legs
from offhook.calls.summary import summarize
from offhook.event import CallEvent, EventType


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
    if closing == "hangup" and any(leg.recorded for leg in find_legs(state)):
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
    began = micros(call.started) // 1000
    return f"{began:012x}{blake2b(name, digest_size=10).hexdigest()}"
