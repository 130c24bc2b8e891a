"""`Inbox`: the log of accepted events, and what is kept beside it."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, RedisError, ResponseError

from offhook.errors import InboxUnavailable, LeaseLost
from offhook.event import CallEvent, from_stored, to_stored
from offhook.inbox import keys
from offhook.inbox.entries import (
    MOST_PARTITIONS,
    Batch,
    CursorState,
    circuit_seconds,
    partition_of,
)
from offhook.inbox.positions import order_of, position_at, position_before
from offhook.inbox.scripts import script

BLOCK_MS = 2_000  # the longest time that a command of ours blocks
LEASE_MS = 6_000  # a dispatch that has been silent for so long is taken for dead
WAKING_MS = 5_000  # a wake-up that has not become a dispatch by then is made again
_LOOK_EVERY = 0.05  # seconds between two looks at the server's memory: a look costs two appends

Durability = Literal["server", "disk", "replica"]


class Inbox:
    """The inbox on one Redis or Valkey server.

    Args:
        redis: a client that returns bytes.
        partitions: how many streams the events are spread over.
        durability: where an appended event must be, as the settings say.
    """

    def __init__(self, redis: Redis, partitions: int, durability: Durability = "server") -> None:
        self.redis = redis
        self.partitions = partitions
        self._durability = durability
        self._look_at = 0.0  # at the server's memory
        self._append: AsyncScript = redis.register_script(script("append"))
        self._behind: AsyncScript = redis.register_script(script("behind"))
        self._advance: AsyncScript = redis.register_script(script("advance"))
        self._rejoin: AsyncScript = redis.register_script(script("rejoin"))
        self._attempt: AsyncScript = redis.register_script(script("attempt"))
        self._spare: AsyncScript = redis.register_script(script("spare"))

    async def append(
        self,
        batch: Batch,
        handlers: Sequence[str],
        duplicate_window: float,
        patience: float = BLOCK_MS / 1000,
    ) -> tuple[set[int], list[str]]:
        """Append a batch, in one step; repeats within the window are left out.

        A batch that the server has already is not appended again.

        Args:
            handlers: whose cursors to look after.
            duplicate_window: seconds; 0: there are no repeats.
            patience: seconds that a disk or a replica has to confirm it.

        Returns:
            The indices of the repeats, and the handlers whose dispatch must be called.

        Raises:
            InboxUnavailable: it is not where it must be, or nobody says so. It may be delivered
                all the same; appended again with its number, it is there once.
        """
        partition = batch.partition
        script_keys = [
            keys.inbox(partition),
            keys.written(partition, batch.writer),
            keys.last(partition),
            *(keys.awake(partition, handler) for handler in handlers),
        ]
        window = int(duplicate_window * 1000)
        now = time.monotonic()
        look = now >= self._look_at
        seen_prefix = keys.seen(partition, "")
        arguments: list[Any] = [window, WAKING_MS, seen_prefix, batch.number, int(look)]
        for mark, stored in zip(batch.marks, batch.events, strict=True):
            arguments += (mark, bytes(stored))
        try:
            if self._durability == "server":
                seen, wake = await self._append(keys=script_keys, args=arguments)
            else:
                seen, wake = await self._append_and_wait(script_keys, arguments, patience)
        except (RedisError, OSError) as error:
            raise InboxUnavailable(f"Redis did not take the events: {error}") from error
        if look:  # and there was room
            self._look_at = now + _LOOK_EVERY
        return set(seen), [handlers[index] for index in wake]

    async def _append_and_wait(
        self, script_keys: list[str], arguments: list[Any], patience: float
    ) -> tuple[list[int], list[int]]:
        milliseconds = max(1, int(min(patience * 1000, BLOCK_MS) * 0.9))
        # What is waited for is what was written on the same connection.
        async with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.evalsha(self._append.sha, len(script_keys), *script_keys, *arguments)
            if self._durability == "disk":
                pipeline.execute_command("WAITAOF", 1, 0, milliseconds)
            else:
                pipeline.execute_command("WAIT", 1, milliseconds)
            appended, confirmed = await pipeline.execute(raise_on_error=False)
        if isinstance(appended, NoScriptError):
            await self.redis.script_load(script("append"))
            return await self._append_and_wait(script_keys, arguments, patience)
        for answer in (appended, confirmed):
            if isinstance(answer, Exception):
                raise answer
        if self._durability == "disk":
            if not confirmed[0]:
                raise InboxUnavailable(f"its disk has not had them within {milliseconds} ms")
        elif not confirmed:
            raise InboxUnavailable(f"no replica has had them within {milliseconds} ms")
        seen, wake = appended
        return seen, wake

    async def ensure_cursor(self, handler: str, start: str) -> None:
        """Give the handler its cursor in every partition, unless it has it.

        Args:
            start: `now` or `earliest`.
        """
        for partition in range(self.partitions):
            stream = keys.inbox(partition)
            # First a look: a server that is full refuses to make even what there is.
            if handler.encode() in await self._groups(stream):
                continue
            try:
                await self.redis.xgroup_create(
                    stream, handler, id="$" if start == "now" else "0", mkstream=True
                )
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def _groups(self, stream: str) -> set[bytes]:
        try:
            return {group["name"] for group in await self.redis.xinfo_groups(stream)}
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            return set()

    async def set_back(self, handler: str, since: datetime) -> int:
        """Set the handler's cursor back to the first event accepted at or after `since`.

        A cursor that has not come so far stays where it is: moved on, it would lose events.

        Returns:
            How many events it will get again.
        """
        position = position_at(since)
        count = 0
        for partition in range(self.partitions):
            read, _ = await self._read_since(handler, partition, position)
            if read:
                key = keys.inbox(partition)
                await self.redis.xgroup_setid(key, handler, position_before(position))
            count += read
        return count

    async def read_since(self, handler: str, since: datetime) -> tuple[int, datetime | None]:
        """How many events since then the handler has read, and when the first was accepted."""
        position = position_at(since)
        found = [
            await self._read_since(handler, partition, position)
            for partition in range(self.partitions)
        ]
        first = min((moment for _, moment in found if moment), default=None)
        return sum(count for count, _ in found), first

    async def _read_since(
        self, handler: str, partition: int, position: str
    ) -> tuple[int, datetime | None]:
        key = keys.inbox(partition)
        try:
            groups = await self.redis.xinfo_groups(key)
        except ResponseError:  # no stream yet
            return 0, None
        last = next((g["last-delivered-id"] for g in groups if g["name"] == handler.encode()), b"0")
        count, first = 0, None
        start: bytes | str = position
        while page := await self._page(key, start, last):
            first = first or datetime.fromtimestamp(order_of(page[0])[0] / 1000, UTC)
            count += len(page)
            start = b"(" + page[-1]
        return count, first

    async def _page(
        self, key: str, start: bytes | str, last: bytes, count: int = 1000
    ) -> list[bytes]:
        found: Any = await self.redis.xrange(key, min=start, max=last, count=count)
        return [position for position, _ in found]

    async def length(self, partition: int) -> int:
        """How many events a partition holds, delivered ones too."""
        return int(await self.redis.xlen(keys.inbox(partition)))

    async def behind(self, handler: str, partition: int) -> bool:
        """Does a cursor have events to deliver and nobody who does it? Then mark it as waking."""
        return bool(
            await self._behind(
                keys=[keys.awake(partition, handler), keys.inbox(partition)],
                args=[handler, WAKING_MS, LEASE_MS],
            )
        )

    async def state(self, handler: str, partition: int) -> CursorState:
        """How far the handler has got in one partition."""
        stream = keys.inbox(partition)
        async with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.xinfo_groups(stream)
            pipeline.hlen(keys.parked(partition, handler))
            pipeline.pttl(keys.circuit(partition, handler))
            pipeline.hgetall(keys.counts(partition, handler))
            pipeline.xlen(stream)
            groups, lanes, circuit, counts, length = await pipeline.execute(raise_on_error=False)
        lag = in_flight = 0
        for group in groups if isinstance(groups, list) else ():
            if group["name"] == handler.encode():
                lag = group["lag"]
                in_flight = group["pending"]
                if lag is None:  # the server lost count, after a replay
                    lag, start = 0, b"(" + group["last-delivered-id"]
                    while page := await self._page(stream, start, b"+"):
                        lag += len(page)
                        start = b"(" + page[-1]
                lag = min(lag, length)  # the server counts what was forgotten, too
        return CursorState(
            lag=lag,
            in_flight=in_flight,
            lanes=lanes,
            circuit_open=circuit_seconds(circuit) or None,
            delivered=int(counts.get(b"delivered", 0)),
            failed=int(counts.get(b"failed", 0)),
            dead=int(counts.get(b"dead", 0)),
        )

    async def beyond(self) -> list[int]:
        """The partitions that there are beyond ours: `partitions` was larger once."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            for partition in range(self.partitions, MOST_PARTITIONS):
                pipeline.exists(keys.inbox(partition))
            found = await pipeline.execute()
        return [self.partitions + index for index, exists in enumerate(found) if exists]

    async def unfinished(self, handlers: Iterable[str], partition: int) -> bool:
        """Is something there that one of the handlers has not had?"""
        states = [await self.state(handler, partition) for handler in handlers]
        return any(state.lag or state.in_flight or state.lanes for state in states)

    async def parked(self, handler: str, partition: int) -> dict[str, str]:
        """The parked lanes of a handler: lane -> id of the event that each waits for."""
        found: Any = await self.redis.hgetall(keys.parked(partition, handler))
        return {lane.decode(): event_id.decode() for lane, event_id in found.items()}

    async def begin_attempt(self, handler: str, event: CallEvent) -> int:
        """Count an attempt to deliver the event that a parked lane waits for.

        Returns:
            Its number, from 1; 0 when the lane does not wait for this event (any more).
        """
        partition = await self._lane_of(handler, event)
        return int(
            await self._attempt(
                keys=[
                    keys.parked(partition, handler),
                    keys.attempts(partition, handler),
                ],
                args=[event.call, event.id],
            )
        )

    async def _lane_of(self, handler: str, event: CallEvent) -> int:
        """The partition where the event's lane waits: another than its own, when `partitions` was
        changed meanwhile."""
        own = partition_of(event, self.partitions)
        head = event.id.encode()
        if await self.redis.hget(keys.parked(own, handler), event.call) == head:
            return own
        async with self.redis.pipeline(transaction=False) as pipeline:
            for partition in range(MOST_PARTITIONS):
                pipeline.hget(keys.parked(partition, handler), event.call)
            heads = await pipeline.execute()
        return heads.index(head) if head in heads else own

    async def head(self, handler: str, partition: int, lane: str) -> CallEvent | None:
        """The event that a parked lane waits for."""
        stored = await self.redis.lindex(keys.lane(partition, handler, lane), 0)
        return from_stored(stored) if stored else None

    async def advance(self, handler: str, event: CallEvent, outcome: str) -> CallEvent | None:
        """The event that a lane waited for is done with: free the lane, or return its next event.

        Args:
            outcome: `delivered` or `dead`, for the counts.

        Raises:
            LeaseLost: the lane does not wait for this event (any more).
        """
        partition = await self._lane_of(handler, event)
        answer = await self._advance(
            keys=[
                keys.parked(partition, handler),
                keys.lane(partition, handler, event.call),
                keys.counts(partition, handler),
                keys.attempts(partition, handler),
            ],
            args=[event.call, event.id, outcome],
        )
        if answer == 0:
            raise LeaseLost(f"lane {event.call} does not wait for event {event.id}")
        return from_stored(answer) if answer else None

    async def rejoin(self, handler: str, event: CallEvent) -> bool:
        """Put a dead letter back into its lane. True: it is first there, and must be sent."""
        partition = partition_of(event, self.partitions)
        return bool(
            await self._rejoin(
                keys=[
                    keys.parked(partition, handler),
                    keys.lane(partition, handler, event.call),
                ],
                args=[event.call, event.id, to_stored(event)],
            )
        )

    async def circuit_open_for(self, handler: str, event: CallEvent) -> float:
        """Seconds until the next probe of the handler's circuit; 0 when it is not open."""
        partition = partition_of(event, self.partitions)
        return circuit_seconds(await self.redis.pttl(keys.circuit(partition, handler)))

    async def failures(self, handler: str, event: CallEvent) -> int:
        """How many deliveries to the handler have failed in a row, on the event's cursor."""
        partition = partition_of(event, self.partitions)
        return int(await self.redis.get(keys.failing(partition, handler)) or 0)

    async def spare(self, handler: str, event: CallEvent, seconds: float) -> None:
        """Take the attempt back that has begun, and have the circuit open, unless it is."""
        partition = await self._lane_of(handler, event)
        await self._spare(
            keys=[
                keys.parked(partition, handler),
                keys.attempts(partition, handler),
                keys.circuit(partition, handler),
            ],
            args=[event.call, event.id, int(seconds * 1000)],
        )

    async def is_back(self, handler: str, event: CallEvent) -> None:
        """The handler's other side has taken the event: its circuit need not be open."""
        partition = partition_of(event, self.partitions)
        await self.redis.delete(keys.failing(partition, handler), keys.circuit(partition, handler))

    async def count(self, handler: str, event: CallEvent, outcome: str) -> None:
        """Add one to the handler's count of `outcome`."""
        partition = partition_of(event, self.partitions)
        await self.redis.hincrby(keys.counts(partition, handler), outcome, 1)

    async def watched(self) -> bool:
        """Is somebody listening to what is delivered?"""
        found = await self.redis.pubsub_numsub(keys.DELIVERIES)
        return bool(found and found[0][1])

    async def publish(self, attempts: list[dict[str, Any]]) -> None:
        """Tell those who listen which attempts to deliver were made."""
        await self.redis.publish(keys.DELIVERIES, msgspec.json.encode(attempts))

    async def watch_deliveries(self) -> AsyncIterator[dict[str, Any]]:
        """The attempts to deliver, of all handlers, as they are made. Ends only from outside."""
        async with self.redis.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(keys.DELIVERIES)
            while True:
                message = await channel.get_message(timeout=BLOCK_MS / 1000)
                for attempt in msgspec.json.decode(message["data"]) if message else ():
                    yield attempt

    async def watch_events(self) -> AsyncIterator[CallEvent]:
        """The events of all partitions, as they are accepted. Ends only from outside."""
        streams: Any = {keys.inbox(p): "$" for p in range(self.partitions)}
        while True:
            answer: Any = await self.redis.xread(streams, block=BLOCK_MS)
            for stream, items in answer or ():
                for position, fields in items:
                    streams[stream.decode()] = position
                    yield from_stored(fields[b"e"])

    async def quarantine(self, refused: dict[str, str | bytes], size: int) -> None:
        """Keep a refused callback for a person to look at; the oldest of more than `size` go."""
        if size:
            await self.redis.xadd(keys.QUARANTINE, refused, maxlen=size, approximate=False)  # type: ignore[arg-type]

    async def quarantined(self) -> list[tuple[str, dict[str, bytes]]]:
        """The refused callbacks that are kept, each with its id; the newest first."""
        found: Any = await self.redis.xrevrange(keys.QUARANTINE)
        return [
            (key.decode(), {name.decode(): value for name, value in refused.items()})
            for key, refused in found
        ]

    async def quarantine_length(self) -> int:
        """How many refused callbacks are kept."""
        return int(await self.redis.xlen(keys.QUARANTINE))

    async def clear_quarantine(self) -> None:
        """Forget the refused callbacks."""
        await self.redis.delete(keys.QUARANTINE)

    async def trim(self, partition: int, before: datetime | None, handlers: Iterable[str]) -> int:
        """Forget the events accepted before a moment, but none that a cursor has not delivered.

        Args:
            before: by the server's clock; None: all that are delivered.

        Returns:
            How many events were forgotten.
        """
        key = keys.inbox(partition)
        oldest = (int(before.timestamp() * 1000) if before else 1 << 62, 0)
        wanted = {handler.encode() for handler in handlers}
        try:
            groups = await self.redis.xinfo_groups(key)
        except ResponseError:  # no stream yet
            return 0
        for group in groups:
            if group["name"] not in wanted:
                continue  # the cursor of a handler that is not configured any more
            position = group["last-delivered-id"]
            if group["pending"]:
                pending = await self.redis.xpending(key, group["name"])
                # None: they were acknowledged meanwhile.
                position = min(position, pending["min"] or position, key=order_of)
            oldest = min(oldest, order_of(position))
        return int(await self.redis.xtrim(key, minid=f"{oldest[0]}-{oldest[1]}", approximate=True))

    async def memory_used(self) -> float:
        """The part of its `maxmemory` that the server has used; 0 when it has no such limit."""
        memory: Any = await self.redis.info("memory")
        most = memory.get("maxmemory", 0)
        return float(memory["used_memory"] / most) if most else 0.0

    async def cut(self, partition: int, most: int, handlers: Iterable[str]) -> Counter[str]:
        """Forget the oldest events beyond `most`, also those that a cursor has not delivered.

        Returns:
            For each of the handlers that lost some: how many it will never get.
        """
        key = keys.inbox(partition)
        wanted = {handler.encode() for handler in handlers}
        lost: Counter[str] = Counter()
        while (excess := await self.redis.xlen(key) - most) > 0:
            page = await self._page(key, "-", b"+", min(excess, 1000))
            for group in await self.redis.xinfo_groups(key):
                name, read = group["name"], order_of(group["last-delivered-id"])
                pending: Any = await self.redis.xpending_range(key, name, "-", page[-1], 1000)
                in_flight = [item["message_id"] for item in pending]
                if in_flight:  # or its dispatch would look for them for ever
                    await self.redis.xack(key, name, *in_flight)
                if name in wanted:
                    unread = sum(order_of(position) > read for position in page)
                    lost[name.decode()] += unread + len(in_flight)
            milliseconds, number = order_of(page[-1])
            following = f"{milliseconds}-{number + 1}"
            await self.redis.xtrim(key, minid=following, approximate=False)
        return +lost

    async def cursors(self) -> set[str]:
        """The handlers that have a cursor, configured or not."""
        names: set[str] = set()
        for partition in range(self.partitions):
            groups = await self._groups(keys.inbox(partition))
            names |= {name.decode() for name in groups}
        return names

    async def forget(self, handler: str) -> None:
        """Delete a handler's cursors, and what waits in its parked lanes."""
        for partition in range(self.partitions):
            lanes = await self.parked(handler, partition)
            await self.redis.delete(
                keys.awake(partition, handler),
                keys.parked(partition, handler),
                keys.attempts(partition, handler),
                keys.circuit(partition, handler),
                keys.failing(partition, handler),
                keys.counts(partition, handler),
                *(keys.lane(partition, handler, lane) for lane in lanes),
            )
            with suppress(ResponseError):  # no stream yet
                await self.redis.xgroup_destroy(keys.inbox(partition), handler)
