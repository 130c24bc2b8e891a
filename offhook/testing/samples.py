"""Sample events and calls, and the events of one call in order."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec

from offhook.call import Call, Kind, Leg, Outcome, Party
from offhook.dialects import voipnow
from offhook.event import CALLS, GROUPS, TROUBLE, CallEvent, EventType, new_event_id

_OUTSIDE = {"CallerIDNum": "+40211234567", "CallerIDName": "Jane Doe", "CalledDID": "+40318100210"}
_IN = _OUTSIDE | {"CallID": "1795289400.101", "CalledExtension": "0003*210", "CallFlow": "in"}
_OUT = {
    "CallID": "1795289700.102",
    "CallerExtension": "0003*210",
    "CalledNumber": "+40211234567",
    "CallFlow": "out",
}

# Two calls: Jane Doe calls extension 0003*210, is answered and hangs up; then it calls her.
_PARAMETERS: dict[EventType, dict[str, str]] = {
    EventType.DIAL_IN: _IN | {"CallStatus": "CALLING"},
    EventType.ANSWER_IN: _IN | {"CallStatus": "ANSWER"},
    EventType.HANGUP: _IN | {"CallStatus": "ANSWER"},
    EventType.DIAL_OUT: _OUT | {"CallStatus": "CALLING"},
    EventType.ANSWER_OUT: _OUT | {"CallStatus": "ANSWER"},
}
# What events say that belong to no call.
_SAID: dict[EventType, dict[str, str]] = {
    EventType.DAILY_SUMMARY: {
        "text": "12 calls: 9 answered, 3 missed",
        "calls": "12",
        "answered": "9",
        "missed": "3",
    },
    EventType.HANDLER_FAILING: {
        "handler": "crm",
        "attempts": "5",
        "circuit": "open",
        "text": "Deliveries to crm keep failing: its circuit is open.",
    },
    EventType.HANDLER_RECOVERED: {
        "handler": "crm",
        "seconds": "754",
        "text": "crm takes deliveries again, after 13 min.",
    },
    EventType.DEAD_LETTER: {
        "handler": "crm",
        "count": "3",
        "text": "3 deliveries to crm became dead letters: `offhook dead list` says why.",
    },
    EventType.JOURNAL_USED: {
        "count": "120",
        "text": "Redis did not take 120 events: kept on the receiver's disk first.",
    },
    EventType.INBOX_FILLING: {
        "percent": "83",
        "text": (
            "Redis uses 83 % of its maxmemory: delivered events are deleted before keep_days, "
            "and from 90 % on events go to the journal."
        ),
    },
    EventType.REGISTRATION_LOST: {
        "count": "2",
        "extensions": "0003*210, 0003*211",
        "text": "Callbacks of 2 extensions are not registered on the PBX main: 0003*210, 0003*211.",
    },
}

_BEGAN = datetime(2026, 11, 21, 19, 30, 0, 250_000, tzinfo=UTC)
_JANE = Party(number="+40211234567", name="Jane Doe", e164="+40211234567")
_DESK = Party(number="+40318100210", did="+40318100210", extension="0003*210", e164="+40318100210")


def sample_call(outcome: Outcome | str | None = Outcome.ANSWERED, **overrides: Any) -> Call:
    """Jane Doe's call to extension 0003*210, from outside.

    Args:
        outcome: such as `"missed"`; None if it is still ringing.
        overrides: fields of the call to change.

    Raises:
        ValueError: there is no such outcome.
        TypeError: a call has no such field.
    """
    known = None if outcome is None else Outcome(outcome)
    answered = _BEGAN + timedelta(seconds=8) if known is Outcome.ANSWERED else None
    ended = None if known is None else _BEGAN + timedelta(seconds=53 if answered else 20)
    leg = Leg(
        extension="0003*210",
        kind=Kind.PHONE,
        direction="in",
        rang=_BEGAN,
        answered=answered,
        ended=ended,
        status=known and _STATUSES[known],
    )
    call = Call(
        id=_IN["CallID"],
        pbx="main",
        direction="in",
        caller=_JANE,
        called=_DESK,
        started=_BEGAN,
        answered=answered,
        ended=ended,
        answered_by="0003*210" if answered else None,
        ring_seconds=8.0 if answered else 20.0 if ended else 0.0,
        talk_seconds=45.0 if answered else 0.0,
        outcome=known,
        closed_by="hangup" if ended else None,
        legs=(leg,),
    )
    return msgspec.structs.replace(call, **overrides)


_STATUSES = {
    Outcome.ANSWERED: "ANSWER",
    Outcome.MISSED: "NOANSWER",
    Outcome.BUSY: "BUSY",
    Outcome.CANCELLED: "CANCEL",
    Outcome.UNREACHABLE: "CHANUNAVAIL",
    Outcome.FAILED: "CONGESTION",
}


def _talking() -> Call:
    """The call of `sample_call`, answered and still going on."""
    over = sample_call()
    leg = msgspec.structs.replace(over.legs[0], ended=None, status=None)
    return msgspec.structs.replace(
        over, ended=None, outcome=None, closed_by=None, talk_seconds=0.0, legs=(leg,)
    )


_STAGES: dict[EventType, Callable[[], Call]] = {
    EventType.CALL_STARTED: partial(sample_call, None),
    EventType.CALL_ANSWERED: _talking,
    EventType.MISSED_CALL: partial(sample_call, Outcome.MISSED),
}


def _latest(call: Call) -> datetime:
    return call.ended or call.answered or call.started


def sample_event(
    type: EventType | str = EventType.DIAL_IN,  # noqa: A002 - the field's name
    **overrides: Any,
) -> CallEvent:
    """A complete event of this type, with a new id.

    Args:
        type: such as `"answer-in"`, or `"call-ended"`, which has a `summary`.
        overrides: fields of the event to change.

    Raises:
        ValueError: there is no such event type.
        TypeError: an event has no such field.
    """
    kind = EventType(type)
    if kind in _PARAMETERS:
        event = voipnow.read_event(
            pbx="main",
            extension="0003*210",
            type=kind,
            parameters=dict(_PARAMETERS[kind]),
            received=_BEGAN,
        )
        return msgspec.structs.replace(event, **overrides)
    summary: Call | None = overrides.get("summary")
    if summary is None and kind in CALLS:
        summary = _STAGES[kind]() if kind in _STAGES else sample_call()
    about = _about(kind)
    event = CallEvent(
        id=new_event_id(),
        pbx="" if kind in TROUBLE and kind is not EventType.REGISTRATION_LOST else "main",
        extension="" if kind in TROUBLE else "0003*210",
        type=kind,
        call_id=summary.id if summary else about,
        direction=summary.direction if summary else None,
        caller=summary.caller if summary else Party(),
        called=summary.called if summary else Party(),
        status=None,
        received=_latest(summary) if summary else _BEGAN,
        parameters=dict(_SAID.get(kind, {})),
        summary=summary,
    )
    return msgspec.structs.replace(event, **overrides)


def sample_events(group: str = "raw") -> list[CallEvent]:
    """One event of each type of a group, such as `raw` or `calls`, in a likely order."""
    types = _PARAMETERS if group == "raw" else GROUPS[group]
    return [sample_event(type) for type in types]  # noqa: A001 - the field's name


def _about(kind: EventType) -> str:
    """What takes the place of the call's id in an event that belongs to no call."""
    if kind in (EventType.HANDLER_FAILING, EventType.HANDLER_RECOVERED, EventType.DEAD_LETTER):
        return "handler crm"
    names = {
        EventType.JOURNAL_USED: "journal",
        EventType.INBOX_FILLING: "inbox",
        EventType.REGISTRATION_LOST: "registrations main",
    }
    return names.get(kind, "extension 0003*210")


def told(outcome: Outcome) -> Iterator[tuple[CallEvent, Call]]:
    """The events of a call in the order of delivery, each with the call as known by then."""
    yield from _stage(EventType.DIAL_IN, "CALLING", EventType.CALL_STARTED, sample_call(None))
    if outcome is Outcome.ANSWERED:
        yield from _stage(EventType.ANSWER_IN, "ANSWER", EventType.CALL_ANSWERED, _talking())
    over = sample_call(outcome)
    yield from _stage(EventType.HANGUP, _STATUSES[outcome], EventType.CALL_ENDED, over)
    if outcome is not Outcome.ANSWERED:
        yield sample_event(EventType.MISSED_CALL, summary=over), over


def _stage(
    raw: EventType, status: str, whole: EventType, call: Call
) -> Iterator[tuple[CallEvent, Call]]:
    """A raw event, and the event about the whole call that follows from it."""
    parameters = _PARAMETERS[raw] | {"CallStatus": status}
    moment = _latest(call)
    yield sample_event(raw, status=status, parameters=parameters, received=moment), call
    yield sample_event(whole, summary=call), call
