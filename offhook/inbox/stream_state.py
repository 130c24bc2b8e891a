"""`StreamState`: a tenant's stream in a partition, as the last server left it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from offhook.inbox import keys
from offhook.inbox.positions import START


@dataclass
class StreamState:
    """What a server needs to know to continue with a stream.

    Attributes:
        read: how far the pool's handlers have read together.
        shared: the same of the shared pool: where a handler is that has no position in a record.
        folded: how far its events were folded into calls.
        records: of handlers that have not finished what was read: position (None: `read`), and the
            positions of events that they had not finished.
        known: the handlers that have a position.
        replays: handlers to be set back, and to where.
    """

    tenant: str
    read: bytes
    shared: bytes
    folded: bytes
    records: dict[str, tuple[bytes | None, list[bytes]]]
    known: set[str]
    replays: dict[str, bytes]

    @classmethod
    def from_redis(
        cls,
        tenant: str,
        read: bytes | None,
        shared: bytes | None,
        folded: bytes | None,
        records: Mapping[bytes, bytes],
        known: Iterable[bytes],
        replays: Mapping[bytes, bytes],
    ) -> "StreamState":
        """The state, from what Redis has."""
        return cls(
            tenant,
            read or shared or START,
            shared or START,
            folded or START,
            {name.decode(): _record(record) for name, record in records.items()},
            {name.decode() for name in known},
            by_name(replays),
        )


def by_name(found: Mapping[bytes, bytes]) -> dict[str, bytes]:
    """Handlers and positions."""
    return {name.decode(): position for name, position in found.items()}


async def place_of(
    redis: Redis, partition: int, tenant: str, handler: str
) -> tuple[bytes, list[bytes]]:
    """How far a handler has read, and the positions of events that it has not finished."""
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.hget(keys.behind(partition, tenant), handler)
        pipeline.hget(keys.read(partition), tenant)
        record, shared = await pipeline.execute()
    return place(record, shared)


def place(record: bytes | None, shared: bytes | None) -> tuple[bytes, list[bytes]]:
    """The same, from what Redis has of the handler and of those that read together."""
    own, pending = _record(record or b"-")
    return own or shared or START, pending


def _record(stored: bytes) -> tuple[bytes | None, list[bytes]]:
    position, *pending = stored.split(b" ")
    return None if position == b"-" else position, pending
