"""Trials: a test event for one handler, delivered by its own process, as a redelivery is."""

import asyncio
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec.structs import replace

from offhook.errors import ConfigError
from offhook.event import CallEvent, EventType
from offhook.inbox import Inbox, ParkedLanes
from offhook.inbox.record import Record, WantedAttempts
from offhook.inbox.record_part import RecordedAttempt
from offhook.operations.audit import Change, note_change
from offhook.plugins import event_types
from offhook.settings import HandlerSettings, tenant_of_plugin

_LOOK_EVERY = 0.1  # seconds
_MOST_SHOWN = 20  # attempts


def trial_types(policy: HandlerSettings) -> list[EventType]:
    """The event types that a handler gets, in their usual order.

    Raises:
        ConfigError: the plugin cannot be loaded.
    """
    types = event_types(policy)
    return [each for each in EventType if each in types]


async def send_trial(
    inbox: Inbox,
    handler: str,
    policy: HandlerSettings,
    by: str,
    sample: Callable[[EventType], CallEvent],
    wanted: EventType | None = None,
) -> CallEvent:
    """Let a handler, and no other, get a made-up event of a made-up call.

    It is not in the inbox, and no filter applies. While the handler is paused, or its circuit is
    open, the event waits as others do.

    Args:
        handler: its full name.
        by: who sends it.
        sample: makes an event up, as `offhook.testing.sample_event` does.
        wanted: the type; the first of those that it gets if not given.

    Raises:
        ConfigError: the handler gets no events of this type.
    """
    types = trial_types(policy)
    if not types or wanted not in (None, *types):
        raise ConfigError(f"{handler} gets {', '.join(types) or 'no events'}: choose one of these")
    event = as_trial(sample(wanted or types[0]), tenant_of_plugin(handler))
    await ParkedLanes(inbox, handler).rejoin([event])
    sent, tenant = {"event": event.type.value, "handler": handler}, tenant_of_plugin(handler)
    await note_change(inbox.redis, by, Change.HANDLER_TRIED, sent, tenant=tenant)
    return event


def as_trial(event: CallEvent, tenant: str = "") -> CallEvent:
    """A made-up event that says so, of a call of its own."""
    call_id = f"test-{secrets.token_hex(6)}"
    return replace(
        event,
        call_id=call_id,
        tenant=tenant,
        received=datetime.now(UTC),
        parameters={**event.parameters, "CallID": call_id, "test": "1"},
        summary=event.summary and replace(event.summary, id=call_id),
    )


async def attempts_of(inbox: Inbox, handler: str, call: str) -> list[RecordedAttempt]:
    """The attempts at the event of a trial, newest first, by the name of its call."""
    wanted = WantedAttempts(handler=handler, call=call)
    return (await Record(inbox).page(wanted, _MOST_SHOWN)).attempts


async def outcome_of(
    inbox: Inbox, handler: str, call: str, patience: float
) -> RecordedAttempt | None:
    """The last attempt at the event of a trial; None if there was none within some seconds."""
    end = time.monotonic() + patience
    while not (found := await attempts_of(inbox, handler, call)) and time.monotonic() < end:
        await asyncio.sleep(_LOOK_EVERY)
    return found[0] if found else None
