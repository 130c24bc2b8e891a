"""The audit log: who changed what, and when. Kept in Redis, bounded."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis.asyncio import Redis

from offhook.inbox import keys

_MOST = 100_000  # entries


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change.

    Attributes:
        at: when, UTC.
        by: the user who made it.
        did: what, as a sentence without a phone number.
        operation: the id of the operation, if it is one.
    """

    at: datetime
    by: str
    did: str
    operation: str | None = None


async def note_change(
    redis: Redis, by: str, did: str, operation: str | None = None, tenant: str = ""
) -> None:
    """Append an entry; beyond 100,000 the oldest are deleted."""
    entry = AuditEntry(at=datetime.now(UTC), by=by, did=did, operation=operation)
    await redis.xadd(
        keys.audit(tenant), {"e": msgspec.json.encode(entry)}, maxlen=_MOST, approximate=True
    )


async def changes(redis: Redis, most: int = 100, tenant: str = "") -> Sequence[AuditEntry]:
    """The newest entries, newest first."""
    found: Any = await redis.xrevrange(keys.audit(tenant), count=most)
    return [msgspec.json.decode(fields[b"e"], type=AuditEntry) for _, fields in found]
