"""`tell`: the events about a call, each made once. Pure."""

from datetime import datetime
from hashlib import blake2b

import msgspec
from msgspec.structs import replace

from offhook.call import Call, Outcome
from offhook.calls.closing import surely_unanswered
from offhook.calls.facts import CallState, Closing, micros
from offhook.calls.roles import find_legs
from offhook.calls.summary import summarize, summarize_legs
from offhook.event import CallEvent, EventType, call_name


def tell(
    state: CallState,
    region: str | None,
    now: datetime,
    closing: Closing | None,
    tenant: str = "",
) -> tuple[CallState, list[CallEvent]]:
    """Return the events that are due, and the state in which they have been made.

    Args:
        region: see `summarize`.
        now: when the events are received.
        closing: what ends the call now: `hangup` after the settle window, `silence` after too long
            without an event; None while the call goes on. A call may be closed more than once: if
            its summary has changed since, call-corrected is due.
    """
    told: list[tuple[EventType, Call]] = []
    pending = not (state.answered or state.closed)
    may_be_answered = pending and any(part.answers for part in state.parts)
    if not state.started or may_be_answered:
        call = summarize(state, region)
        if not state.started:
            told.append((EventType.CALL_STARTED, call))
        answered = state.answered
        if may_be_answered and _is_answered(call):
            told.append((EventType.CALL_ANSWERED, call))
            answered = True
        state = replace(state, started=True, answered=answered)
    if closing is not None:
        state, ending = _close(state, region, closing)
        told += ending
    return state, [_event(type_, call, now, state.corrections, tenant) for type_, call in told]


def _close(
    state: CallState, region: str | None, closing: Closing
) -> tuple[CallState, list[tuple[EventType, Call]]]:
    legs = find_legs(state)
    if closing == "hangup" and any(leg.recorded for leg in legs):
        closing = "records"
    # Changes of what closed it, of the corrections or of the region are no reason to correct it.
    # Nor is another event beyond the first one that the call has no room for.
    left_out = min(1, state.left_out)
    alike_state = replace(state, closed="hangup", corrections=0, left_out=left_out)
    alike = summarize_legs(alike_state, legs, None)
    digest = blake2b(msgspec.json.encode(alike), digest_size=8).hexdigest()
    if digest == state.told:
        return state, []
    closed = replace(state, closed=closing, told=digest)
    if state.closed is not None:
        closed = replace(closed, corrections=state.corrections + 1)
        return closed, [(EventType.CALL_CORRECTED, summarize_legs(closed, legs, region))]
    told, call = [], summarize_legs(closed, legs, region)
    if call.outcome is Outcome.ANSWERED and not state.answered:  # known from a hangup alone
        closed = replace(closed, answered=True)
        told.append((EventType.CALL_ANSWERED, summarize_legs(state, legs, region)))
    told.append((EventType.CALL_ENDED, call))
    missed = call.outcome is not Outcome.ANSWERED and call.direction != "out"
    if missed and surely_unanswered(state):
        told.append((EventType.MISSED_CALL, call))
    return closed, told


def _is_answered(call: Call) -> bool:
    """Return whether it is certain: an answered caller of an internal call may have a queue."""
    if call.direction != "internal":
        return call.answered is not None
    return call.answered is not None and any(
        leg.direction == "in" and leg.answered == call.answered for leg in call.legs
    )


def _event(type_: EventType, call: Call, now: datetime, corrections: int, tenant: str) -> CallEvent:
    return CallEvent(
        id=_event_id(type_, call, corrections, tenant),
        pbx=call.pbx,
        extension=call.answered_by or call.legs[0].extension,
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
        tenant=tenant,
    )


def _event_id(type_: EventType, call: Call, corrections: int, tenant: str) -> str:
    """In the form of `new_event_id`; the same each time for the same event about a call."""
    name = f"{call_name(call.pbx, call.id, tenant)}/{type_}/{corrections}".encode()
    began = micros(call.started) // 1000
    return f"{began:012x}{blake2b(name, digest_size=10).hexdigest()}"
