"""`Cursor`: a handler's place in a partition, and the lease that makes it one dispatch's."""

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
    """One handler's place in one partition, held by the lease of one dispatch.

    Every change is fenced: once another dispatch has the lease, nothing of this one counts.
    """

    # Always the same consumer: the lease says who it is, and what a dead dispatch left pending is
    # found by reading as that consumer again.
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
        self._next: int | None = None  # the number of what comes next, if only we read
        redis = inbox.redis
        self._take: AsyncScript = redis.register_script(script("take"))
        self._renew: AsyncScript = redis.register_script(script("renew"))
        self._rest: AsyncScript = redis.register_script(script("rest"))
        self._acknowledge: AsyncScript = redis.register_script(script("acknowledge"))
        self._park: AsyncScript = redis.register_script(script("park"))
        self._number: AsyncScript = redis.register_script(script("next_number"))

    async def recreate(self) -> None:
        """Make the cursor again on a server that lost it, from the first event there is."""
        await self._inbox.ensure_cursor(self.handler, "earliest")

    async def take(self) -> float:
        """Take the lease. 0: it is ours; otherwise the seconds until its holder's ends."""
        left: float = await self._take(keys=[self._awake], args=[self.token, LEASE_MS])
        return max(0.0, left / 1000)

    async def renew(self) -> bool:
        """Hold the lease for another `LEASE_MS`. False: somebody else has it."""
        return bool(await self._renew(keys=[self._awake], args=[self.token, LEASE_MS]))

    async def rest(self, *, even_if_behind: bool = False) -> bool:
        """Give the lease back, unless events are waiting. False: they are, and it is still ours."""
        return bool(
            await self._rest(
                keys=[self._awake, self._stream],
                args=[self.token, self.handler, int(even_if_behind)],
            )
        )

    async def locate(self) -> None:
        """Take note of where the cursor is, before what is pending is read."""
        self._next = await self._number_of_next()

    async def read(self, count: int, block_ms: int) -> list[Entry]:
        """The next events, at most `count`, after waiting at most `block_ms` for the first.

        Raises:
            CursorMoved: not from where the last read has left it. A request that was given up, or
                that of a dead dispatch, may reach the server late, and what it reads nobody gets:
                it is pending now, as is what this has read. (Or it was a replay, or the inbox has
                forgotten what came next.)
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
        """What an earlier dispatch read and did not finish, from the oldest, in pages.

        Raises:
            LeaseLost: another dispatch serves the cursor.
        """
        while True:
            answer: Any = await self._redis.xreadgroup(
                self.handler, self.CONSUMER, {self._stream: after}, count=count
            )
            entries = read_entries(answer)
            # What the inbox has forgotten meanwhile would be pending for ever.
            gone = [position for _, items in answer for position, fields in items if not fields]
            if gone:
                await self.acknowledge(gone, 0)
            if entries or not gone:
                return entries

    async def attempts(self, after: bytes, count: int) -> dict[bytes, int]:
        """How often each pending event was read: each time may have ended with a dead process."""
        found: Any = await self._redis.xpending_range(
            self._stream, self.handler, min="(" + after.decode(), max="+", count=count
        )
        return {item["message_id"]: item["times_delivered"] for item in found}

    async def forgive(self, positions: Sequence[bytes]) -> None:
        """Forget how often these were read: this dispatch ends in good order."""
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
        """These events are done with; `delivered` of them were, the others were filtered out.

        Raises:
            LeaseLost: another dispatch serves the cursor.
        """
        answer = await self._acknowledge(
            keys=[self._awake, self._stream, self._counts],
            args=[self.token, self.handler, delivered, *positions],
        )
        if answer < 0:
            raise LeaseLost(f"another dispatch serves {self.handler}/{self.partition}")

    async def park(self, entry: Entry, attempts: int) -> bool:
        """Move an event from the cursor to the end of its lane, which waits for a redelivery.

        Args:
            attempts: how often its delivery was attempted.

        Returns:
            Whether the lane waits for this event: then it must be redelivered. Otherwise it
            comes behind others.

        Raises:
            LeaseLost: another dispatch serves the cursor.
        """
        return await self._move(entry, "always", attempts) == 2

    async def park_behind(self, entry: Entry) -> bool:
        """Move an event behind others of its call, if their lane still waits.

        Returns:
            False: the lane is free again, and the event is still to be delivered.

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
            raise LeaseLost(f"another dispatch serves {self.handler}/{self.partition}")
        return answer

    async def parked(self) -> set[str]:
        """The lanes that wait for a redelivery."""
        lanes: Any = await self._redis.hkeys(self._parked)
        return {lane.decode() for lane in lanes}

    async def open_circuit(self, seconds: float) -> None:
        """Tell everybody that the handler's other side is down until then."""
        await self._redis.set(
            self._circuit, "open", px=min(max(1, int(seconds * 1000)), CIRCUIT_MS)
        )

    async def circuit_open_for(self) -> float:
        """Seconds until the next probe; 0 when the circuit is not open."""
        return circuit_seconds(await self._redis.pttl(self._circuit))

    async def failures(self) -> int:
        """How many deliveries have failed in a row, as `note_failures` was told."""
        return int(await self._redis.get(self._failing) or 0)

    async def note_failures(self, failures: int) -> None:
        """Tell everybody how many deliveries have failed in a row. 0: the circuit is not open."""
        if failures:
            await self._redis.set(self._failing, failures)
        else:
            await self._redis.delete(self._failing, self._circuit)

    async def count(self, outcome: str, by: int = 1) -> None:
        """Add to the handler's count of `outcome`."""
        await self._redis.hincrby(self._counts, outcome, by)


def holder(pid: int) -> str:
    """How the token of a lease begins that this process of this machine holds."""
    return f"{socket.gethostname()}/{pid}/"


def release_lease(redis: BlockingRedis, handler: str, partition: int, pid: int) -> bool:
    """Free the lease of a dispatch whose process on this machine is known to be dead."""
    release = redis.register_script(script("release"))
    return bool(release(keys=[keys.awake(partition, handler)], args=[holder(pid)]))
