"""`retry()`: refused callbacks are read again by today's rules, and their events delivered.

quarantine → **retry** (parse, append, remove) → inbox
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from msgspec.structs import replace

from offhook.announcements import announce
from offhook.errors import RefusedCallback
from offhook.event import CallEvent, from_stored
from offhook.inbox import Inbox, quarantine
from offhook.settings import Settings
from receiver.callback import CallbackRequest, accept, fingerprint

# Only a part of these requests is kept, or came, and it may look like another event.
_INCOMPLETE = frozenset({b"incomplete_body", b"read_timeout", b"too_large"})


@dataclass
class Retried:
    """The outcome, by the ids of the refused callbacks.

    Attributes:
        delivered: their events are in the inbox.
        repeats: the same callback was refused twice within `duplicate_window`; delivered once.
        refused: why they stay in the quarantine.
    """

    delivered: list[str] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


async def retry(
    settings: Settings,
    inbox: Inbox,
    kept: Iterable[tuple[str, Mapping[str, bytes]]],
    tenant: str = "",
) -> Retried:
    """Append the events of refused callbacks to the inbox, then remove these from the quarantine.

    A callback always gives an event with the same id, which the inbox takes once. So a crash
    between the two steps loses nothing, and nothing comes twice if it is retried in `keep_days`.

    Args:
        settings: the operator's, also for a tenant's callbacks.
        kept: the callbacks with their ids, oldest first.
        tenant: whose quarantine they are in.

    Raises:
        InboxUnavailable: not all events are in the inbox; nothing was removed.
    """
    outcome = Retried()
    events: list[CallEvent] = []
    seen: dict[str, datetime] = {}
    window = timedelta(seconds=settings.duplicate_window)
    for key, refused in kept:
        if "event" in refused:  # workers could not read it, perhaps as it is of a later version
            try:
                event = from_stored(refused["event"])
            except (ValueError, RecursionError):
                outcome.refused[key] = refused["error"].decode("utf-8", "replace")
            else:
                outcome.delivered.append(key)
                events.append(event)
            continue
        if "cut" in refused or refused["code"] in _INCOMPLETE:
            outcome.refused[key] = f"{refused['message'].decode()} Only a part of it is kept."
            continue
        try:
            event = _event(key, refused, settings, tenant)
        except RefusedCallback as error:
            outcome.refused[key] = error.message
            continue
        mark = fingerprint(event)
        if mark in seen and event.received - seen[mark] < window:
            outcome.repeats.append(key)
            continue
        seen[mark] = event.received
        outcome.delivered.append(key)
        events.append(event)
    await announce(settings, inbox, events, window=settings.keep_days * 86_400)
    await quarantine.remove(inbox.redis, [*outcome.delivered, *outcome.repeats], tenant)
    return outcome


def _event(key: str, refused: Mapping[str, bytes], settings: Settings, tenant: str) -> CallEvent:
    said = {name: value.decode("utf-8", "replace") for name, value in refused.items()}
    request = CallbackRequest(
        pbx=said["pbx"],
        extension=said["extension"],
        event_type=said["event_type"],
        method=said["method"],
        content_type=said["content_type"],
        query=refused["query"],
        body=refused["body"],
    )
    event = accept(request, settings, datetime.fromisoformat(said["received"]))
    # Today the extension may be another tenant's, which must not get what came before.
    return replace(event, id=_event_id(key, tenant), tenant=tenant)


def _event_id(key: str, tenant: str) -> str:
    """The id of the event of a refused callback, in the form of `new_event_id`."""
    milliseconds = int(key.partition("-")[0])
    name = f"{key} {tenant}" if tenant else key
    return f"{milliseconds << 16:016x}{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
