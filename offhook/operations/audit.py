"""The audit log: who changed what, and when. Kept in Redis, bounded."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec
from redis.asyncio import Redis

from offhook.inbox import keys

_MOST = 100_000  # entries


class Change(StrEnum):
    """What a person changed. `SENTENCES` says it in words."""

    CALL_MADE = "call-made"
    CALLBACK_DELIVERED = "callback-delivered"
    CALLBACK_DISCARDED = "callback-discarded"
    CALLBACK_REPEATED = "callback-repeated"
    CALLBACK_STILL_REFUSED = "callback-still-refused"
    DISCARD_ASKED = "discard-asked"
    DISCARD_DONE = "discard-done"
    DISCARD_STOPPED = "discard-stopped"
    DISCARD_UNDONE = "discard-undone"
    EXTENSIONS_COMPARED = "extensions-compared"
    EXTENSIONS_SET_UP = "extensions-set-up"
    HANDLER_PAUSED = "handler-paused"
    HANDLER_REPLAYED = "handler-replayed"
    HANDLER_RESUMED = "handler-resumed"
    HANDLER_TRIED = "handler-tried"
    RECORDS_COMPARED = "records-compared"
    RETRY_ASKED = "retry-asked"
    RETRY_DONE = "retry-done"
    RETRY_STOPPED = "retry-stopped"
    RETRY_UNDONE = "retry-undone"
    WALL_LINK_MADE = "wall-link-made"
    WALL_LINK_REVOKED = "wall-link-revoked"


# In English. Those with a `number` have a form for one, and a form for other numbers.
SENTENCES: Mapping[str, tuple[str, ...]] = {
    Change.CALL_MADE: ("made a call from {extension}",),
    Change.CALLBACK_DELIVERED: ("delivered a callback of {extension} from the quarantine",),
    Change.CALLBACK_DISCARDED: ("discarded a callback of {extension} from the quarantine",),
    Change.CALLBACK_REPEATED: (
        "dropped, as a repeat, a callback of {extension} from the quarantine",
    ),
    Change.CALLBACK_STILL_REFUSED: (
        "tried to deliver a callback of {extension} from the quarantine",
    ),
    Change.DISCARD_ASKED: (
        "asked to discard {number} dead letter",
        "asked to discard {number} dead letters",
    ),
    Change.DISCARD_DONE: (
        "discarded {done} of {number} dead letter",
        "discarded {done} of {number} dead letters",
    ),
    Change.DISCARD_STOPPED: (
        "stopped, after {done}, the discard of {number} dead letter",
        "stopped, after {done}, the discard of {number} dead letters",
    ),
    Change.DISCARD_UNDONE: (
        "undid the discard of {number} dead letter",
        "undid the discard of {number} dead letters",
    ),
    Change.EXTENSIONS_COMPARED: ("asked to compare the extensions with the PBX",),
    Change.EXTENSIONS_SET_UP: (
        "asked to set up {number} extension on the PBX: {extensions}",
        "asked to set up {number} extensions on the PBX: {extensions}",
    ),
    Change.HANDLER_PAUSED: ("paused {handler}",),
    Change.HANDLER_REPLAYED: (
        "set {handler} back to {since}: {number} event",
        "set {handler} back to {since}: {number} events",
    ),
    Change.HANDLER_RESUMED: ("resumed {handler}",),
    Change.HANDLER_TRIED: ("sent a test event ({event}) to {handler}",),
    Change.RECORDS_COMPARED: ("asked to compare the PBX's records",),
    Change.RETRY_ASKED: (
        "asked to retry {number} dead letter",
        "asked to retry {number} dead letters",
    ),
    Change.RETRY_DONE: (
        "retried {done} of {number} dead letter",
        "retried {done} of {number} dead letters",
    ),
    Change.RETRY_STOPPED: (
        "stopped, after {done}, the retry of {number} dead letter",
        "stopped, after {done}, the retry of {number} dead letters",
    ),
    Change.RETRY_UNDONE: (
        "undid the retry of {number} dead letter",
        "undid the retry of {number} dead letters",
    ),
    Change.WALL_LINK_MADE: ("made the wall link “{name}” ({id})",),
    Change.WALL_LINK_REVOKED: ("revoked the wall link “{name}” ({id})",),
}

Details = Mapping[str, str | int]


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change.

    Attributes:
        at: when, UTC.
        by: the user who made it.
        did: what, as an English sentence without a phone number.
        operation: the id of the operation, if it is one.
        change: what, as a word for programs; null in entries of earlier versions.
        details: what the sentence names: `handler`, `extension`, `number`, ...
    """

    at: datetime
    by: str
    did: str
    operation: str | None = None
    change: str | None = None
    details: dict[str, str | int] = {}


async def note_change(
    redis: Redis,
    by: str,
    change: Change,
    details: Details | None = None,
    *,
    operation: str | None = None,
    tenant: str = "",
) -> None:
    """Append an entry; beyond 100,000 the oldest are deleted.

    Args:
        details: the values that the sentence of the change has in its `{names}`.
    """
    details = dict(details or {})
    forms = SENTENCES[change]
    sentence = forms[0] if details.get("number") == 1 else forms[-1]
    numbers = {name: f"{each:,}" for name, each in details.items() if isinstance(each, int)}
    entry = AuditEntry(
        at=datetime.now(UTC),
        by=by,
        did=sentence.format(**{**details, **numbers}),
        operation=operation,
        change=change,
        details=details,
    )
    await redis.xadd(
        keys.audit(tenant), {"e": msgspec.json.encode(entry)}, maxlen=_MOST, approximate=True
    )


async def changes(redis: Redis, most: int = 100, tenant: str = "") -> Sequence[AuditEntry]:
    """The newest entries, newest first."""
    found: Any = await redis.xrevrange(keys.audit(tenant), count=most)
    return [msgspec.json.decode(fields[b"e"], type=AuditEntry) for _, fields in found]
