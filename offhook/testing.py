"""For plugin authors: sample events, and delivering one to a handler as the workers do it.

Neither a server nor a PBX is needed:

    from offhook.testing import configured, deliver, sample_event

    deliver(configured(Spreadsheet, url=target), sample_event("hangup", status="NOANSWER"))
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import msgspec

from offhook.event import CallEvent, EventType, read_event
from offhook.extensions import UNKNOWN, ExtensionSettings
from offhook.handler import (
    Context,
    Function,
    H,
    Handler,
    PluggedHandler,
    plugged,
    with_options,
)
from offhook.http import Http
from offhook.settings import HandlerSettings

_OUTSIDE = {"CallerIDNum": "+40211234567", "CallerIDName": "Jane Doe", "CalledDID": "+40318100210"}
_IN = _OUTSIDE | {"CallID": "1795289400.101", "CalledExtension": "0003*210", "CallFlow": "in"}
_OUT = {
    "CallID": "1795289700.102",
    "CallerExtension": "0003*210",
    "CalledNumber": "+40211234567",
    "CallFlow": "out",
}

# Two calls of extension 0003*210: Jane Doe calls, is answered and hangs up; then it calls her.
_PARAMETERS: dict[EventType, dict[str, str]] = {
    EventType.DIAL_IN: _IN | {"CallStatus": "CALLING"},
    EventType.ANSWER_IN: _IN | {"CallStatus": "ANSWER"},
    EventType.HANGUP: _IN | {"CallStatus": "ANSWER"},
    EventType.DIAL_OUT: _OUT | {"CallStatus": "CALLING"},
    EventType.ANSWER_OUT: _OUT | {"CallStatus": "ANSWER"},
}


def sample_event(
    type: EventType | str = EventType.DIAL_IN,  # noqa: A002 - the field's name
    **overrides: Any,
) -> CallEvent:
    """A complete event of this type, with an id of its own.

    Args:
        type: such as `"answer-in"`.
        overrides: fields of the event that shall differ.

    Raises:
        ValueError: there is no such event type.
        TypeError: an event has no such field.
    """
    kind = EventType(type)
    event = read_event(
        pbx="main",
        extension="0003*210",
        type=kind,
        parameters=dict(_PARAMETERS[kind]),
        received=datetime(2026, 11, 21, 19, 30, 0, 250_000, tzinfo=UTC),
    )
    assert event is not None  # noqa: S101 - every sample has a CallID
    return msgspec.structs.replace(event, **overrides)


def sample_events() -> list[CallEvent]:
    """One event of every type, in the order in which they would come."""
    return [sample_event(type) for type in _PARAMETERS]  # noqa: A001 - the field's name


def context(
    attempt: int = 1,
    *,
    event: CallEvent | None = None,
    extension: ExtensionSettings = UNKNOWN,
) -> Context:
    """A context, to call `handle` with.

    Args:
        event: the one that is delivered; a sample if not given.
        extension: what `offhook setup` was told of the extension.

    A handler that makes requests is easier to try with `deliver`, which closes the connections.
    """
    return Context("test", attempt, Http(), event or sample_event("dial-in"), extension)


def configured(handler: type[H], **options: Any) -> H:
    """The handler with options read as from the configuration file: converted and checked.

    Raises:
        offhook.errors.ConfigError: a sentence for every wrong option, with its name.
    """
    return with_options(handler, options, "options")


def deliver(
    handler: Handler | Function,
    event: CallEvent,
    attempt: int = 1,
    *,
    timeout: float = 30.0,
    extension: ExtensionSettings = UNKNOWN,
) -> None:
    """Hand an event to a handler, or to a function, once, exactly as the workers do.

    `async def` runs on an event loop of its own, a plain `def` in a thread. Returning means
    delivered.

    Args:
        attempt: what `context.attempt` says.
        timeout: seconds that it may take.
        extension: what `offhook setup` was told of the extension.

    Raises:
        TemporaryError: the workers would try again; also when it took longer than `timeout`.
        PermanentError: it would lie among the dead letters at once.
        Exception: anything else is a bug in the handler.
    """
    policy = HandlerSettings(use="offhook.testing:deliver", timeout=timeout)
    asyncio.run(_deliver(plugged("test", policy, handler), event, attempt, extension))


async def _deliver(
    handler: PluggedHandler, event: CallEvent, attempt: int, extension: ExtensionSettings
) -> None:
    threads = ThreadPoolExecutor(1, "handler")
    try:
        async with Http() as http:
            await handler.deliver(
                event, attempt=attempt, http=http, threads=threads, extension=extension
            )
    finally:
        threads.shutdown(wait=False)  # one that hangs cannot be stopped
