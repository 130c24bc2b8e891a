"""`Cursor`: a handler's position in a partition, served by the dispatch that holds its lease."""

import os
import secrets
import socket
from collections.abc import Sequence
from typing import Any

from redis import Redis as BlockingRedis
from redis.commands.core import AsyncScript

from offhook.errors import CursorMoved, LeaseLost
from offhook.inbox import keys
from offhook.inbox.entries import CIRCUIT_MS, Entry, circuit_seconds, read_entries
from offhook.inbox.scripts import script
from offhook.inbox.stream import LEASE_MS, Inbox


class Cursor:
    """One handler's position in one partition, held by the lease of one dispatch.

    Every change is fenced: once another dispatch holds the lease, this one changes nothing.
    """

    # The same for every dispatch: the lease tells them apart, and the next dispatch finds what a
    # dead one left pending by reading as the same consumer.
    CONSUMER = "dispatch"

    def __init__(
        self, inbox: Inbox, handler: str, partition: int, token: str | None = None
    ) -> None:
        self.handler = handler
        self.partition = partition
        self.token = token or f"{holder(os.getpid())}{secrets.token_hex(8)}"
        self._inbox = inbox
        self._redis = inbox.redis
        self._stream = keys.inbox(partition)
        self._awake = keys.awake(partition, handler)
        self._parked = keys.parked(partition, handler)
        self._circuit = keys.circuit(partition, handler)
        self._failing = keys.failing(partition, handler)
        self._counts = keys.counts(partition, handler)
        self._last = keys.last(partition)
        self._next: int | None = None  # number of the next event, if no other process reads
        redis = inbox.redis
        self._take: AsyncScript = redis.register_script(script("take"))
        self._renew: AsyncScript = redis.register_script(script("renew"))
        self._rest: AsyncScript = redis.register_script(script("rest"))
        self._acknowledge: AsyncScript = redis.register_script(script("acknowledge"))
        self._park: AsyncScript = redis.register_script(script("park"))
        self._number: AsyncScript = redis.register_script(script("next_number"))

    async def recreate(self) -> None:
        """Create the cursor again on a server that lost it, at the oldest event."""
        await self._inbox.ensure_cursor(self.handler, "earliest")

    async def take(self) -> float:
        """Take the lease. Returns 0, or the seconds until the lease of its holder ends."""
        left: float = await self._take(keys=[self._awake], args=[self.token, LEASE_MS])
        return max(0.0, left / 1000)

    async def renew(self) -> bool:
        """Renew the lease for another `LEASE_MS`. Returns False if another dispatch holds it."""
        return bool(await self._renew(keys=[self._awake], args=[self.token, LEASE_MS]))

    async def rest(self, *, even_if_behind: bool = False) -> bool:
        """Give the lease back. Returns False, and keeps it, if events are waiting."""
        return bool(
            await self._rest(
                keys=[self._awake, self._stream],
                args=[self.token, self.handler, int(even_if_behind)],
            )
        )

    async def locate(self) -> None:
        """Remember where the cursor is. Call it before pending events are read."""
        self._next = await self._number_of_next()

    async def read(self, count: int, block_ms: int) -> list[Entry]:
        """Read the next events, at most `count`; wait at most `block_ms` for the first.

        Raises:
            CursorMoved: the cursor is not where the last read left it. A request that timed out, or
                one of a dead dispatch, may reach the server late; the events that it reads are
                pending now, as are those of this read. Other causes: a replay, or trimming.
        """
        answer = await self._redis.xreadgroup(
            self.handler, self.CONSUMER, {self._stream: ">"}, count=count, block=block_ms
        )
        entries = read_entries(answer)
        number = entries[0].number if entries else await self._number_of_next()
        if self._next not in (None, number):
            raise CursorMoved(f"{self.handler}/{self.partition}: a late read, or a replay")
        self._next = entries[-1].number + 1 if entries else number
        return entries

    async def _number_of_next(self) -> int:
        number: int = await self._number(keys=[self._stream, self._last], args=[self.handler])
        return number

    async def read_pending(self, after: bytes, count: int) -> list[Entry]:
        """A page of the events that an earlier dispatch read and did not finish, oldest first.

        Raises:
            LeaseLost: another dispatch serves the cursor.
        """
        while True:
            answer: Any = await self._redis.xreadgroup(
                self.handler, self.CONSUMER, {self._stream: after}, count=count
            )
            entries = read_entries(answer)
            # Events that were trimmed since would be pending forever.
            gone = [position for _, items in answer for position, fields in items if not fields]
            if gone:
                await self.acknowledge(gone, 0)
            if entries or not gone:
                return entries

    async def attempts(self, after: bytes, count: int) -> dict[bytes, int]:
        """How often each pending event was read; each read may have ended in a dead process."""
        found: Any = await self._redis.xpending_range(
            self._stream, self.handler, min="(" + after.decode(), max="+", count=count
        )
        return {item["message_id"]: item["times_delivered"] for item in found}

    async def forgive(self, positions: Sequence[bytes]) -> None:
        """Reset how often these were read, because this dispatch stops in good order."""
        await self._redis.xclaim(
            self._stream,
            self.handler,
            self.CONSUMER,
            0,
            list(positions),
            retrycount=0,
            justid=True,
        )

    async def acknowledge(self, positions: Sequence[bytes], delivered: int) -> None:
        """Acknowledge events: `delivered` of them were delivered, the others were filtered out.

        Raises:
            LeaseLost: another dispatch serves the cursor.
        """
        answer = await self._acknowledge(
            keys=[self._awake, self._stream, self._counts],
            args=[self.token, self.handler, delivered, *positions],
        )
        if answer < 0:
            raise self._lease_lost()

    async def park(self, entry: Entry, attempts: int) -> bool:
        """Move an event from the cursor to the end of its lane, and park the lane.

        Args:
            attempts: number of attempts made to deliver it.

        Returns:
            Whether the lane waits for this event, which must be redelivered, and not for another.

        Raises:
            LeaseLost: another dispatch serves the cursor.
        """
        return await self._move(entry, "always", attempts) == 2

    async def park_behind(self, entry: Entry) -> bool:
        """Move an event to the end of its lane if the lane is still parked.

        Returns:
            False if the lane is free again: the event must be delivered.

        Raises:
            LeaseLost: another dispatch serves the cursor.
        """
        return await self._move(entry, "behind", 0) > 0

    async def _move(self, entry: Entry, when: str, attempts: int) -> int:
        event = entry.event
        answer: int = await self._park(
            keys=[
                self._awake,
                self._stream,
                self._parked,
                keys.lane(self.partition, self.handler, event.call),
                keys.attempts(self.partition, self.handler),
            ],
            args=[
                self.token,
                self.handler,
                entry.position,
                event.call,
                event.id,
                entry.stored,
                when,
                attempts,
            ],
        )
        if answer < 0:
            raise self._lease_lost()
        return answer

    def _lease_lost(self) -> LeaseLost:
        return LeaseLost(f"another dispatch serves {self.handler}/{self.partition}")

    async def parked(self) -> set[str]:
        """The calls whose lanes are parked."""
        lanes: Any = await self._redis.hkeys(self._parked)
        return {lane.decode() for lane in lanes}

    async def open_circuit(self, seconds: float) -> None:
        """Open the handler's circuit for so many seconds: its target is down."""
        await self._redis.set(
            self._circuit, "open", px=min(max(1, int(seconds * 1000)), CIRCUIT_MS)
        )

    async def circuit_open_for(self) -> float:
        """Seconds until the next probe; 0 if the circuit is not open."""
        return circuit_seconds(await self._redis.pttl(self._circuit))

    async def failures(self) -> int:
        """Return how many deliveries have failed in a row, as stored by `note_failures`."""
        return int(await self._redis.get(self._failing) or 0)

    async def note_failures(self, failures: int) -> None:
        """Store how many deliveries have failed in a row; 0 closes the circuit."""
        if failures:
            await self._redis.set(self._failing, failures)
        else:
            await self._redis.delete(self._failing, self._circuit)

    async def count(self, outcome: str, by: int = 1) -> None:
        """Add to the handler's count of `outcome`."""
        await self._redis.hincrby(self._counts, outcome, by)


def holder(pid: int) -> str:
    """What the tokens of a process on this machine begin with."""
    return f"{socket.gethostname()}/{pid}/"


def release_lease(redis: BlockingRedis, handler: str, partition: int, pid: int) -> bool:
    """Free the lease of a dead process of this machine; return whether it held it."""
    release = redis.register_script(script("release"))
    return bool(release(keys=[keys.awake(partition, handler)], args=[holder(pid)]))
