"""For plugin authors: sample events, and delivering them to a handler as the workers do.

No server and no PBX are needed:

    from offhook.testing import configured, deliver, sample_event

    deliver(configured(Spreadsheet, url=target), sample_event("hangup", status="NOANSWER"))

`deliver_call` delivers every event of a call, twice. `look_up` asks a lookup. A `LocalMemory` keeps
what a handler remembers.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import msgspec

from offhook.call import Call, Kind, Leg, Outcome, Party
from offhook.dialects import voipnow
from offhook.event import CALLS, GROUPS, CallEvent, EventType, new_event_id
from offhook.extensions import UNKNOWN, ExtensionSettings
from offhook.handler import Context, Handler
from offhook.handler_memory import LocalMemory, Memory
from offhook.http import Http
from offhook.lookup import Lookup
from offhook.phone_number import Number
from offhook.plugins import Function, PluggedHandler, PluggedLookup, with_options
from offhook.settings import HandlerSettings, LookupSettings

T = TypeVar("T")

__all__ = [
    "LocalMemory",
    "configured",
    "context",
    "deliver",
    "deliver_call",
    "look_up",
    "sample_call",
    "sample_event",
    "sample_events",
]

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
_SUMMARY = {"text": "12 calls: 9 answered, 3 missed", "calls": "12", "answered": "9", "missed": "3"}

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
    event = CallEvent(
        id=new_event_id(),
        pbx="main",
        extension="0003*210",
        type=kind,
        call_id=summary.id if summary else "extension 0003*210",
        direction=summary.direction if summary else None,
        caller=summary.caller if summary else Party(),
        called=summary.called if summary else Party(),
        status=None,
        received=_latest(summary) if summary else _BEGAN,
        parameters=dict(_SUMMARY) if kind is EventType.DAILY_SUMMARY else {},
        summary=summary,
    )
    return msgspec.structs.replace(event, **overrides)


def sample_events(group: str = "raw") -> list[CallEvent]:
    """One event of each type of a group (`raw`, `calls`, `extensions`), in a likely order."""
    types = _PARAMETERS if group == "raw" else GROUPS[group]
    return [sample_event(type) for type in types]  # noqa: A001 - the field's name


def context(
    attempt: int = 1,
    *,
    event: CallEvent | None = None,
    extension: ExtensionSettings = UNKNOWN,
    call: Call | None = None,
    memory: Memory | None = None,
) -> Context:
    """A context to call `handle` with.

    `deliver` is easier for a handler that makes requests: it closes the connections.

    Args:
        event: the event being delivered; a sample if not given.
        extension: the settings of the extension from `offhook setup`.
        call: the result of `context.call()`; a sample if not given.
        memory: the handler's memory; empty if not given.
    """
    event, calls = event or sample_event(), partial(_found, call or sample_call())
    return Context("test", attempt, Http(), event, extension, calls, memory or LocalMemory())


def configured(handler: type[T], **options: Any) -> T:
    """A handler or lookup with options that are converted and checked as in the configuration.

    Raises:
        offhook.errors.ConfigError: a sentence for each wrong option, with its name.
    """
    return with_options(handler, options, "options")


def deliver(
    handler: Handler | Function,
    event: CallEvent,
    attempt: int = 1,
    *,
    timeout: float = 30.0,
    extension: ExtensionSettings = UNKNOWN,
    call: Call | None = None,
    memory: Memory | None = None,
) -> None:
    """Deliver an event to a handler or a function once, exactly as the workers do.

    An `async def` runs on a new event loop, a plain `def` in a thread. Returning means delivered.

    Args:
        attempt: the value of `context.attempt`.
        timeout: maximum seconds.
        extension: the settings of the extension from `offhook setup`.
        call: the result of `context.call()`; a sample if not given.
        memory: the handler's memory, such as a `LocalMemory()`; empty if not given.

    Raises:
        TemporaryError: the workers would try again; also after `timeout` seconds.
        PermanentError: the event would become a dead letter at once.
        Exception: anything else is a bug in the handler.
    """
    policy = HandlerSettings(use="offhook.testing:deliver", timeout=timeout)
    run = _deliver(
        PluggedHandler.of("test", policy, handler), event, attempt, extension, call, memory
    )
    asyncio.run(run)


def deliver_call(
    handler: Handler | Function,
    outcome: Outcome | str = Outcome.ANSWERED,
    *,
    events: Sequence[str] | None = None,
    timeout: float = 30.0,
    extension: ExtensionSettings = UNKNOWN,
    memory: Memory | None = None,
) -> list[CallEvent]:
    """Deliver the events of `sample_call` in order, each twice, as after a crash.

    The target should end up in the same state as after one delivery of each.

    Args:
        outcome: such as `"missed"`.
        events: types and groups, as in the handler's table; the handler's own choice if not given.
        timeout: maximum seconds for one delivery.
        extension: the settings of the extension from `offhook setup`.
        memory: the handler's memory; empty at first if not given.

    Returns:
        The delivered events, each once.

    Raises:
        ValueError: there is no such outcome or event type, or the handler gets none of the events.
        Exception: raised by the handler, as in `deliver`.
    """
    policy = HandlerSettings.model_validate(
        {"use": "offhook.testing:deliver_call", "timeout": timeout, "events": events}
    )
    plug = PluggedHandler.of("test", policy, handler)
    told = [(event, call) for event, call in _told(Outcome(outcome)) if plug.wants(event)]
    if not told:
        raise ValueError("the handler gets no event of a call: name some, events=['call-ended']")
    kept = memory or LocalMemory()

    async def run() -> None:
        for event, call in told:
            for attempt in (1, 2):
                await _deliver(plug, event, attempt, extension, call, kept)

    asyncio.run(run())
    return [event for event, _ in told]


def look_up(
    lookup: Lookup,
    number: str,
    *,
    region: str | None = None,
    timeout: float = 2.0,
    memory: Memory | None = None,
) -> str | None:
    """Ask a lookup for the name of a number once, exactly as the workers do.

    Args:
        number: as the PBX sends it.
        region: the country whose numbers are dialled without a prefix, such as GB.
        timeout: maximum seconds.
        memory: the lookup's memory; empty if not given.

    Returns:
        The name that the event gets, or None.

    Raises:
        TemporaryError: the lookup took longer than `timeout`.
        Exception: raised by the lookup. The workers would log it and go on without the name.
    """
    policy = LookupSettings(use="offhook.testing:look_up", timeout=timeout)
    event = sample_event(caller=Party(number=number))

    async def ask() -> str | None:
        async with Http() as http:
            with _thread() as threads:
                return await PluggedLookup("test", policy, lookup).ask(
                    Number.read(number, region), event, http=http, threads=threads, memory=memory
                )

    return asyncio.run(ask())


def _told(outcome: Outcome) -> Iterator[tuple[CallEvent, Call]]:
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


async def _found(call: Call, event: CallEvent) -> Call:
    return call


async def _deliver(
    handler: PluggedHandler,
    event: CallEvent,
    attempt: int,
    extension: ExtensionSettings,
    call: Call | None,
    memory: Memory | None,
) -> None:
    async with Http() as http:
        with _thread() as threads:
            await handler.deliver(
                event,
                attempt=attempt,
                http=http,
                threads=threads,
                extension=extension,
                calls=partial(_found, call or sample_call()),
                memory=memory,
            )


@contextmanager
def _thread() -> Iterator[ThreadPoolExecutor]:
    threads = ThreadPoolExecutor(1, "plugin")
    try:
        yield threads
    finally:
        threads.shutdown(wait=False)  # a thread that hangs cannot be stopped
