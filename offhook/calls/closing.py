"""When a call may be closed, whether it was missed, and when a CallID is another call's. Pure.

A false missed call is worse than a late one: what is known of the call decides how long to wait.
"""

from collections.abc import Callable
from datetime import datetime
from math import inf

from offhook.call import Kind
from offhook.calls.facts import CallState, flow_of, micros
from offhook.calls.legs import DISORDER, UNANSWERED, FoldedLeg, short
from offhook.calls.roles import find_legs, parties, passed_on_by, tail
from offhook.calls.summary import find_root, find_talkers, has_unknown_end
from offhook.event import CallEvent, EventType

DAY = 86_400_000_000  # microseconds; no call lasts longer, nor leaves its CallID unused so long

_BEGINS = (
    EventType.DIAL_IN,
    EventType.DIAL_OUT,
    EventType.ANSWER_IN,
    EventType.ANSWER_OUT,
)


def over(state: CallState) -> bool:
    """Return whether every leg has ended. The PBX makes a record only when a call is over."""
    if any(part.records for part in state.parts):
        return True
    return all(part.hangups for part in state.parts) and _all_ended(find_legs(state))


def settles_after(
    state: CallState, settle: float, unanswered: float, kind_of: Callable[[str], Kind | None]
) -> float | None:
    """Seconds from the last event until the call counts as ended; None while it goes on.

    Args:
        settle: seconds after the last hangup, if the caller is known to have gone.
        unanswered: seconds if the call may still ring, such as at a phone to which it was
            forwarded and whose dial is lost.
        kind_of: the kind of an extension of this PBX, if it is known.
    """
    if any(part.records for part in state.parts):
        return settle
    if not all(part.hangups for part in state.parts):
        return None
    legs = [leg for leg in find_legs(state) if not leg.stray]
    if not _all_ended(legs):
        return None
    talkers = find_talkers(legs)
    if any(leg.was_answered for leg in talkers) or any(leg.bridged for leg in legs):
        return settle
    if find_root(legs).part.flow == "out" or _gave_up(legs, talkers):
        return settle
    return None if _waits(state, talkers, kind_of) else max(settle, unanswered)


def goes_on(state: CallState, now: datetime, *, records: bool) -> bool:
    """Return whether a call with an open leg goes on after `call_timeout` seconds of silence.

    Args:
        records: whether the PBX's records are compared with the calls. They report the end of a
            call, so a call that they do not contain has not ended.
    """
    return records and micros(now) - state.last < DAY and not over(state)


def surely_unanswered(state: CallState) -> bool:
    """Return whether no lost or omitted event can have been an answer."""
    legs = [leg for leg in find_legs(state) if not leg.stray]
    return not state.left_out and all(
        leg.status in UNANSWERED
        or (leg.ended is not None and (leg.room or not has_unknown_end(leg)))
        for leg in legs
    )


def used_again(state: CallState, event: CallEvent, settle: float = inf) -> bool:
    """Return whether an event begins another call with the same CallID.

    It does if the call has ended, and another party calls or a day has passed.

    Args:
        settle: see `settles_after`; if not given, only a closed call counts as ended.
    """
    after = micros(event.occurred or event.received) - state.last
    if event.type not in _BEGINS or after <= 0:
        return False
    if state.closed is None and (after <= settle * 1e6 or not over(state)):
        return False
    return after > DAY or _has_another_caller(state, event)


def name_of_latest(name: str, state: CallState) -> str:
    """The name of the last call with a CallID, from the first call's name and state."""
    return f"{name}~{state.again + 1}" if state.again else name


def _all_ended(legs: list[FoldedLeg]) -> bool:
    return all(leg.ended is not None or leg.replaced for leg in legs)


def _gave_up(legs: list[FoldedLeg], talkers: list[FoldedLeg]) -> bool:
    """Return whether the phones that rang last report that the caller hung up."""
    ended = max((leg.ended for leg in legs if leg.ended is not None), default=0)
    last = [leg for leg in talkers if leg.ended is not None and leg.ended >= ended - DISORDER]
    return bool(last) and all(leg.status == "CANCEL" for leg in last)


def _waits(
    state: CallState, talkers: list[FoldedLeg], kind_of: Callable[[str], Kind | None]
) -> bool:
    """Return whether the caller may be waiting where no callback comes from.

    Such as in a queue that is not set up, whose agents are called one after the other.
    """
    here = {part.extension for part in state.parts}
    away = {passed_on_by(leg) for leg in talkers} - here - {None}
    return any(each and kind_of(each) not in (Kind.PHONE, Kind.CONFERENCE) for each in away)


def _has_another_caller(state: CallState, event: CallEvent) -> bool:
    here = set[str]().union(*(parties(part.words) for part in state.parts))
    here |= {part.extension for part in state.parts}
    if flow_of(event) == "out":
        return here.isdisjoint((event.extension, tail(event.caller.number)))
    number, peer = event.caller.number, event.caller.extension
    if number is None or (peer and number in (peer, short(peer))):
        return peer is not None and peer not in here
    return tail(number) not in here
