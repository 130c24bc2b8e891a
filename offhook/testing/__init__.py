"""For plugin authors: sample events, and delivering them to a handler as the workers do.

No server and no PBX are needed:

    from offhook.testing import configured, deliver, sample_event

    deliver(configured(Spreadsheet, url=target), sample_event("hangup", status="NOANSWER"))

`deliver_call` delivers every event of a call, twice. `look_up` asks a lookup. A `LocalMemory` keeps
what a handler remembers.
"""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from offhook.call import Call, Outcome, Party
from offhook.event import CallEvent
from offhook.extensions import UNKNOWN, ExtensionSettings
from offhook.handler import Context, Handler
from offhook.handler_memory import LocalMemory, Memory
from offhook.http import Http
from offhook.lookup import Lookup
from offhook.phone_number import Number
from offhook.plugins import Function, PluggedHandler, PluggedLookup, with_options
from offhook.settings import HandlerSettings, LookupSettings
from offhook.testing.samples import sample_call, sample_event, sample_events, told

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
    wanted = [(event, call) for event, call in told(Outcome(outcome)) if plug.wants(event)]
    if not wanted:
        raise ValueError("the handler gets no event of a call: name some, events=['call-ended']")
    kept = memory or LocalMemory()

    async def run() -> None:
        for event, call in wanted:
            for attempt in (1, 2):
                await _deliver(plug, event, attempt, extension, call, kept)

    asyncio.run(run())
    return [event for event, _ in wanted]


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
