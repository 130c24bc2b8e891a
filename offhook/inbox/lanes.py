"""`ParkedLanes`: a handler's parked lanes, each the undelivered events of one call, in order.

The first event of a parked lane waits for its redelivery, the others wait behind it.
"""

from typing import Any

from redis.commands.core import AsyncScript

from offhook.errors import LeaseLost
from offhook.event import CallEvent, from_stored, to_stored
from offhook.inbox import keys
from offhook.inbox.entries import MOST_PARTITIONS, circuit_seconds, partition_of
from offhook.inbox.scripts import script
from offhook.inbox.stream import Inbox


class ParkedLanes:
    """The parked lanes of one handler, and its circuit as a redelivery sees it."""

    def __init__(self, inbox: Inbox, handler: str) -> None:
        self._redis = redis = inbox.redis
        self._partitions = inbox.partitions
        self._handler = handler
        self._attempt: AsyncScript = redis.register_script(script("attempt"))
        self._spare: AsyncScript = redis.register_script(script("spare"))
        self._advance: AsyncScript = redis.register_script(script("advance"))
        self._rejoin: AsyncScript = redis.register_script(script("rejoin"))

    async def parked(self, partition: int) -> dict[str, str]:
        """The parked lanes: call -> id of the event that the lane waits for."""
        found: Any = await self._redis.hgetall(keys.parked(partition, self._handler))
        return {call.decode(): event_id.decode() for call, event_id in found.items()}

    async def head(self, partition: int, call: str) -> CallEvent | None:
        """The event that a parked lane waits for."""
        stored = await self._redis.lindex(keys.lane(partition, self._handler, call), 0)
        return from_stored(stored) if stored else None

    async def begin_attempt(self, event: CallEvent) -> int:
        """Count an attempt to deliver the event that a parked lane waits for.

        Returns:
            Its number, from 1; 0 if the lane does not wait for this event, or no longer.
        """
        partition = await self._partition_of(event)
        return int(
            await self._attempt(
                keys=[
                    keys.parked(partition, self._handler),
                    keys.attempts(partition, self._handler),
                ],
                args=[event.call, event.id],
            )
        )

    async def spare(self, event: CallEvent, seconds: float) -> None:
        """Take back the attempt that has begun, and open the circuit unless it is open."""
        partition = await self._partition_of(event)
        await self._spare(
            keys=[
                keys.parked(partition, self._handler),
                keys.attempts(partition, self._handler),
                keys.circuit(partition, self._handler),
            ],
            args=[event.call, event.id, int(seconds * 1000)],
        )

    async def advance(self, event: CallEvent, outcome: str) -> CallEvent | None:
        """Remove the event that a lane waits for; return the lane's next event, or free the lane.

        Args:
            outcome: `delivered` or `dead`, for the counts.

        Raises:
            LeaseLost: the lane does not wait for this event, or no longer.
        """
        partition = await self._partition_of(event)
        answer = await self._advance(
            keys=[
                keys.parked(partition, self._handler),
                keys.lane(partition, self._handler, event.call),
                keys.counts(partition, self._handler),
                keys.attempts(partition, self._handler),
            ],
            args=[event.call, event.id, outcome],
        )
        if answer == 0:
            raise LeaseLost(f"lane {event.call} does not wait for event {event.id}")
        return from_stored(answer) if answer else None

    async def rejoin(self, event: CallEvent) -> bool:
        """Put a dead letter back at the end of its lane; return whether it must be redelivered."""
        partition = partition_of(event, self._partitions)
        return bool(
            await self._rejoin(
                keys=[
                    keys.parked(partition, self._handler),
                    keys.lane(partition, self._handler, event.call),
                ],
                args=[event.call, event.id, to_stored(event)],
            )
        )

    async def circuit_open_for(self, event: CallEvent) -> float:
        """Seconds until the next probe of the handler's circuit; 0 if it is not open."""
        partition = partition_of(event, self._partitions)
        return circuit_seconds(await self._redis.pttl(keys.circuit(partition, self._handler)))

    async def close_circuit(self, event: CallEvent) -> None:
        """Close the circuit, because the target has accepted the event."""
        partition = partition_of(event, self._partitions)
        await self._redis.delete(
            keys.failing(partition, self._handler), keys.circuit(partition, self._handler)
        )

    async def failures(self, event: CallEvent) -> int:
        """Return how many deliveries to the handler have failed in a row, on the event's cursor."""
        partition = partition_of(event, self._partitions)
        return int(await self._redis.get(keys.failing(partition, self._handler)) or 0)

    async def count(self, event: CallEvent, outcome: str) -> None:
        """Add one to the handler's count of `outcome`."""
        partition = partition_of(event, self._partitions)
        await self._redis.hincrby(keys.counts(partition, self._handler), outcome, 1)

    async def _partition_of(self, event: CallEvent) -> int:
        """The partition of the event's lane: not its own if `partitions` was changed since."""
        own = partition_of(event, self._partitions)
        head = event.id.encode()
        if await self._redis.hget(keys.parked(own, self._handler), event.call) == head:
            return own
        async with self._redis.pipeline(transaction=False) as pipeline:
            for partition in range(MOST_PARTITIONS):
                pipeline.hget(keys.parked(partition, self._handler), event.call)
            heads = await pipeline.execute()
        return heads.index(head) if head in heads else own
