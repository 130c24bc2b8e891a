"""`Inbox`: the log of accepted events, and how far each handler has come on it."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, RedisError, ResponseError

from offhook.errors import InboxUnavailable
from offhook.inbox import keys
from offhook.inbox.entries import MOST_PARTITIONS, Batch, CursorState, circuit_seconds
from offhook.inbox.positions import order_of, position_at, position_before
from offhook.inbox.scripts import script

BLOCK_MS = 2_000  # the longest time that a command of ours blocks
LEASE_MS = 6_000  # a dispatch that has not renewed its lease for so long is considered dead
WAKING_MS = 5_000  # a wake-up that has not become a dispatch by then is repeated
_MEMORY_CHECK_EVERY = 0.05  # seconds; a check costs as much as two appends
_PAGE = 1000

Durability = Literal["server", "disk", "replica"]


class Inbox:
    """The inbox on one Redis or Valkey server.

    Args:
        redis: a client that returns bytes.
        partitions: number of streams that the events are spread over.
        durability: where an appended event must be, as in the settings.
        replicas: how many replicas must have it, with `durability` "replica".
    """

    def __init__(
        self,
        redis: Redis,
        partitions: int,
        durability: Durability = "server",
        replicas: int | None = None,
    ) -> None:
        self.redis = redis
        self.partitions = partitions
        self._durability = durability
        self._replicas = replicas or 1
        self._check_memory_at = 0.0
        self._append: AsyncScript = redis.register_script(script("append"))
        self._behind: AsyncScript = redis.register_script(script("behind"))

    async def append(
        self,
        batch: Batch,
        handlers: Sequence[str],
        duplicate_window: float,
        patience: float = BLOCK_MS / 1000,
    ) -> tuple[set[int], list[str]]:
        """Append a batch in one step, without repeats. Idempotent: a batch is appended once.

        Args:
            handlers: whose cursors may have to be woken.
            duplicate_window: seconds; 0 turns the detection of repeats off.
            patience: seconds that a disk or a replica has to confirm it.

        Returns:
            The indices of the repeats, and the handlers that need a dispatch.

        Raises:
            InboxUnavailable: the append is not confirmed. The events may be in the inbox and be
                delivered all the same; append the same batch again.
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
        check = now >= self._check_memory_at
        seen_prefix = keys.seen(partition, "")
        arguments: list[Any] = [window, WAKING_MS, seen_prefix, batch.number, int(check)]
        for mark, stored in zip(batch.marks, batch.events, strict=True):
            arguments += (mark, bytes(stored))
        try:
            if self._durability == "server":
                repeats, wake = await self._append(keys=script_keys, args=arguments)
            else:
                repeats, wake = await self._append_and_wait(script_keys, arguments, patience)
        except (RedisError, OSError) as error:
            raise InboxUnavailable(f"Redis did not take the events: {error}") from error
        if check:  # only after an append that found room
            self._check_memory_at = now + _MEMORY_CHECK_EVERY
        return set(repeats), [handlers[index] for index in wake]

    async def _append_and_wait(
        self, script_keys: list[str], arguments: list[Any], patience: float
    ) -> tuple[list[int], list[int]]:
        milliseconds = max(1, int(min(patience * 1000, BLOCK_MS) * 0.9))
        # WAIT and WAITAOF wait for writes of the same connection, so all goes through one pipeline.
        async with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.evalsha(self._append.sha, len(script_keys), *script_keys, *arguments)
            if self._durability == "disk":
                pipeline.execute_command("WAITAOF", 1, 0, milliseconds)
            else:
                pipeline.execute_command("WAIT", self._replicas, milliseconds)
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
        elif confirmed < self._replicas:
            raise InboxUnavailable(
                f"{confirmed} of {self._replicas} replicas have had them within {milliseconds} ms"
            )
        repeats, wake = appended
        return repeats, wake

    async def ensure_cursor(self, handler: str, start: str) -> None:
        """Create the handler's cursor in every partition where it has none.

        Args:
            start: `now` or `earliest`.
        """
        for partition in range(self.partitions):
            stream = keys.inbox(partition)
            # Look first: a server without memory refuses to create even a group that exists.
            if handler.encode() in await self._groups(stream):
                continue
            try:
                await self.redis.xgroup_create(
                    stream, handler, id="$" if start == "now" else "0", mkstream=True
                )
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def set_back(self, handler: str, since: datetime) -> int:
        """Set the handler's cursor back to the first event accepted at or after `since`.

        A cursor that is behind `since` stays where it is: moved forward, it would lose events.

        Returns:
            Number of events that the handler will get again.
        """
        position = position_at(since)
        total = 0
        for partition in range(self.partitions):
            count, _ = await self._read_since(handler, partition, position)
            if count:
                stream = keys.inbox(partition)
                await self.redis.xgroup_setid(stream, handler, position_before(position))
            total += count
        return total

    async def read_since(self, handler: str, since: datetime) -> tuple[int, datetime | None]:
        """How many events since then the handler has read, and when the first was accepted."""
        position = position_at(since)
        found = [
            await self._read_since(handler, partition, position)
            for partition in range(self.partitions)
        ]
        first = min((order_of(first)[0] for _, first in found if first), default=None)
        accepted = None if first is None else datetime.fromtimestamp(first / 1000, UTC)
        return sum(count for count, _ in found), accepted

    async def _read_since(
        self, handler: str, partition: int, position: str
    ) -> tuple[int, bytes | None]:
        stream = keys.inbox(partition)
        group = (await self._groups(stream)).get(handler.encode())
        if group is None:
            return 0, None
        return await self._count(stream, position, group["last-delivered-id"])

    async def length(self, partition: int) -> int:
        """Return how many events a partition holds, including delivered ones."""
        return int(await self.redis.xlen(keys.inbox(partition)))

    async def behind(self, handler: str, partition: int) -> bool:
        """Return whether a cursor has events to deliver and no dispatch, and mark it as waking."""
        return bool(
            await self._behind(
                keys=[keys.awake(partition, handler), keys.inbox(partition)],
                args=[handler, WAKING_MS, LEASE_MS],
            )
        )

    async def state(self, handler: str, partition: int) -> CursorState:
        """How far the handler has come in one partition."""
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
                if lag is None:  # the server cannot tell after a replay
                    lag, _ = await self._count(stream, b"(" + group["last-delivered-id"], b"+")
                lag = min(lag, length)  # the server counts trimmed events too
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
        """The partitions above ours that exist because `partitions` was larger once."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            for partition in range(self.partitions, MOST_PARTITIONS):
                pipeline.exists(keys.inbox(partition))
            found = await pipeline.execute()
        return [self.partitions + index for index, exists in enumerate(found) if exists]

    async def unfinished(self, handlers: Iterable[str], partition: int) -> bool:
        """Return whether a partition holds events that one of the handlers has not got."""
        states = [await self.state(handler, partition) for handler in handlers]
        return any(state.lag or state.in_flight or state.lanes for state in states)

    async def trim(self, partition: int, before: datetime | None, handlers: Iterable[str]) -> int:
        """Forget events accepted before a moment, except those that a cursor has not delivered.

        Args:
            before: by the server's clock; None for all delivered events.
            handlers: the configured ones; cursors of others hold nothing back.

        Returns:
            How many events were forgotten.
        """
        stream = keys.inbox(partition)
        oldest = await self.undelivered_from(partition, handlers)
        if before:
            oldest = min(oldest, (int(before.timestamp() * 1000), 0))
        minid = f"{oldest[0]}-{oldest[1]}"
        return int(await self.redis.xtrim(stream, minid=minid, approximate=True))

    async def undelivered_from(self, partition: int, handlers: Iterable[str]) -> tuple[int, int]:
        """The position before which each of the handlers has got every event.

        Args:
            handlers: the configured ones; cursors of others hold nothing back.
        """
        stream = keys.inbox(partition)
        oldest = (1 << 62, 0)
        groups = await self._groups(stream)
        for group in (groups[name.encode()] for name in handlers if name.encode() in groups):
            milliseconds, number = order_of(group["last-delivered-id"])
            oldest = min(oldest, (milliseconds, number + 1))
            if group["pending"]:
                pending = await self.redis.xpending(stream, group["name"])
                if pending["min"]:  # else all were acknowledged since
                    oldest = min(oldest, order_of(pending["min"]))
        return oldest

    async def cut(self, partition: int, most: int, handlers: Iterable[str]) -> Counter[str]:
        """Forget the oldest events beyond `most`, even those that a cursor has not delivered.

        Returns:
            How many events each of the handlers will never get.
        """
        stream = keys.inbox(partition)
        wanted = {handler.encode() for handler in handlers}
        lost: Counter[str] = Counter()
        while (excess := await self.redis.xlen(stream) - most) > 0:
            page = await self._page(stream, "-", b"+", min(excess, _PAGE))
            for name, group in (await self._groups(stream)).items():
                read = order_of(group["last-delivered-id"])
                pending: Any = await self.redis.xpending_range(stream, name, "-", page[-1], _PAGE)
                in_flight = [item["message_id"] for item in pending]
                if in_flight:  # or its dispatch would search for them forever
                    await self.redis.xack(stream, name, *in_flight)
                if name in wanted:
                    unread = sum(order_of(position) > read for position in page)
                    lost[name.decode()] += unread + len(in_flight)
            milliseconds, number = order_of(page[-1])
            following = f"{milliseconds}-{number + 1}"
            await self.redis.xtrim(stream, minid=following, approximate=False)
        return +lost

    async def memory_used(self) -> float:
        """The part of `maxmemory` that the server uses; 0 without a limit."""
        memory: Any = await self.redis.info("memory")
        limit = memory.get("maxmemory", 0)
        return float(memory["used_memory"] / limit) if limit else 0.0

    async def cursors(self) -> set[str]:
        """The handlers that have a cursor, configured or not."""
        names: set[str] = set()
        for partition in range(self.partitions):
            names |= {name.decode() for name in await self._groups(keys.inbox(partition))}
        return names

    async def forget(self, handler: str) -> None:
        """Delete a handler's cursors and parked lanes."""
        for partition in range(self.partitions):
            lanes: Any = await self.redis.hkeys(keys.parked(partition, handler))
            await self.redis.delete(
                keys.awake(partition, handler),
                keys.parked(partition, handler),
                keys.attempts(partition, handler),
                keys.circuit(partition, handler),
                keys.failing(partition, handler),
                keys.counts(partition, handler),
                *(keys.lane(partition, handler, lane.decode()) for lane in lanes),
            )
            with suppress(ResponseError):  # there is no stream
                await self.redis.xgroup_destroy(keys.inbox(partition), handler)

    async def _groups(self, stream: str) -> dict[bytes, Any]:
        """The consumer groups of a stream by name; none if it does not exist."""
        try:
            return {group["name"]: group for group in await self.redis.xinfo_groups(stream)}
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            return {}

    async def _count(self, stream: str, start: bytes | str, end: bytes) -> tuple[int, bytes | None]:
        """Count the events between two positions, page by page; also return the first position."""
        count, first = 0, None
        while page := await self._page(stream, start, end):
            first = first or page[0]
            count += len(page)
            start = b"(" + page[-1]
        return count, first

    async def _page(
        self, stream: str, start: bytes | str, end: bytes, count: int = _PAGE
    ) -> list[bytes]:
        found: Any = await self.redis.xrange(stream, min=start, max=end, count=count)
        return [position for position, _ in found]
