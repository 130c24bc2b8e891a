"""The inbox: the log of accepted events. The only file that knows its keys and its scripts.

A partition is one stream; a handler's cursor is a consumer group on it. All keys of a partition
share a hash tag, so partitions can spread over a cluster:

    offhook:{0}:inbox          the stream of partition 0; an entry's field `e` is a stored event
    offhook:{0}:written:WRITER the number of the last batch that this receiver has written
    offhook:{0}:seen:DIGEST    an event was accepted; expires with the duplicate window
    offhook:{0}:awake:crm      the lease of the dispatch that serves the cursor of handler `crm`,
                               or `waking` while one is being called; absent: asleep
    offhook:{0}:parked:crm     hash: lane -> id of the event whose redelivery it waits for
    offhook:{0}:attempts:crm   hash: lane -> attempts made to deliver that event
    offhook:{0}:lane:crm:LANE  list: the stored events of a parked lane, the failed one first
    offhook:{0}:circuit:crm    set while the circuit is open, expires when it is time to probe
    offhook:{0}:counts:crm     hash: delivered, failed, dead
    offhook:quarantine         stream: refused callbacks
    offhook:deliveries         channel: what was delivered, published while somebody listens
"""

import os
import secrets
import socket
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, RedisError, ResponseError

from offhook.connection import BLOCK_MS
from offhook.errors import InboxUnavailable, LeaseLost
from offhook.event import CallEvent, from_stored, to_stored

WAKING_MS = 5_000  # a wake-up that has not become a dispatch by then is made again
LEASE_MS = 6_000  # a dispatch that has been silent for so long is taken for dead
QUARANTINE = "offhook:quarantine"
DELIVERIES = "offhook:deliveries"

Durability = Literal["server", "disk", "replica"]

# One run per batch of callbacks: drop repeats, append, tell whom to wake. The mark that an event
# was seen is written after its append and in the same step, so that a failed append is never
# mistaken for a repeat. A batch has a number, so that one whose answer was lost is sent again and
# appended once. The last of the memory is left to the workers: a server that is quite full refuses
# their writes, too, and nobody could empty it.
_APPEND = """
local number = tonumber(ARGV[4])
local memory = redis.call('INFO', 'memory')
local most = tonumber(string.match(memory, '[\\r\\n]maxmemory:(%d+)'))
local used = tonumber(string.match(memory, '[\\r\\n]used_memory:(%d+)'))
if most > 0 and used > most * 0.9 then
    return redis.error_reply('OOM the server has used 90 % of maxmemory; the rest is for workers')
end
if number <= tonumber(redis.call('GET', KEYS[2]) or 0) then
    -- A write, so that who waits for it on this connection waits for the batch, too.
    redis.call('PEXPIRE', KEYS[2], 604800000)
    return {{}, {}}
end
local window, appended, seen = tonumber(ARGV[1]), 0, {}
for i = 5, #ARGV, 2 do
    local mark = ARGV[3] .. ARGV[i]
    if window > 0 and redis.call('EXISTS', mark) == 1 then
        seen[#seen + 1] = (i - 5) / 2
    else
        redis.call('XADD', KEYS[1], '*', 'e', ARGV[i + 1])
        if window > 0 then redis.call('SET', mark, '', 'PX', window) end
        appended = appended + 1
    end
end
redis.call('SET', KEYS[2], number, 'PX', 604800000)
local wake = {}
if appended > 0 then
    for i = 3, #KEYS do
        if redis.call('SET', KEYS[i], 'waking', 'NX', 'PX', ARGV[2]) then
            wake[#wake + 1] = i - 3
        end
    end
end
return {seen, wake}
"""

_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= 'waking' and holder ~= ARGV[1] then
    return redis.call('PTTL', KEYS[1])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0
"""

_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

# Give the lease back, but only with nothing left to read: an event that came in the meantime saw
# the lease and woke nobody.
_REST = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 1 end
if ARGV[3] == '0' then
    local last
    local info = redis.call('XINFO', 'STREAM', KEYS[2])
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then last = info[i + 1] end
    end
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
        local name, delivered
        for i = 1, #group, 2 do
            if group[i] == 'name' then name = group[i + 1] end
            if group[i] == 'last-delivered-id' then delivered = group[i + 1] end
        end
        if name == ARGV[2] and delivered ~= last then return 0 end
    end
end
redis.call('DEL', KEYS[1])
return 1
"""

_ACKNOWLEDGE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
if tonumber(ARGV[3]) > 0 then redis.call('HINCRBY', KEYS[3], 'delivered', ARGV[3]) end
local done = 0
for i = 4, #ARGV, 5000 do
    done = done + redis.call('XACK', KEYS[2], ARGV[2], unpack(ARGV, i, math.min(i + 4999, #ARGV)))
end
return done
"""

# Move one event from the cursor to the end of its lane. `always`: the lane begins to wait now, for
# this event, of which so many attempts were made. Otherwise only behind others: 0 means that the
# lane is free again. 2: the lane waits for this event, it must be redelivered.
_PARK = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local head = redis.call('HGET', KEYS[3], ARGV[4])
if not head and ARGV[7] ~= 'always' then return 0 end
if head ~= ARGV[5] then
    redis.call('RPUSH', KEYS[4], ARGV[6])
    if not head then
        redis.call('HSET', KEYS[3], ARGV[4], ARGV[5])
        redis.call('HSET', KEYS[5], ARGV[4], ARGV[8])
        head = ARGV[5]
    end
end
redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
return head == ARGV[5] and 2 or 1
"""

# An attempt begins: count it, before it may kill its process. 0: the lane waits for another event.
_ATTEMPT = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HINCRBY', KEYS[2], ARGV[1], 1)
"""

# The event that a lane waits for is done with (delivered or dead): return the next one of it.
_ADVANCE = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HINCRBY', KEYS[3], ARGV[3], 1)
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('LPOP', KEYS[2])
local event = redis.call('LINDEX', KEYS[2], 0)
if not event then
    redis.call('HDEL', KEYS[1], ARGV[1])
    return ''
end
redis.call('HSET', KEYS[1], ARGV[1], cjson.decode(event).id)
return event
"""

# Put a dead letter back at the end of its lane, unless it is in it. 1: it is the first there and
# must be sent.
_REJOIN = """
if redis.call('LPOS', KEYS[2], ARGV[3]) then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[3])
return redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
"""

# Free the lease that a process held which is known to be dead, instead of waiting it out.
_RELEASE = """
local holder = redis.call('GET', KEYS[1])
if not holder or string.sub(holder, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""

_CURSOR_BEHIND = """
if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
local last
local info = redis.call('XINFO', 'STREAM', KEYS[2])
for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
    local is = {}
    for i = 1, #group, 2 do is[group[i]] = group[i + 1] end
    if is['name'] == ARGV[1] and (is['last-delivered-id'] ~= last or is['pending'] > 0) then
        redis.call('SET', KEYS[1], 'waking', 'PX', ARGV[2])
        return 1
    end
end
return 0
"""


class Batch(msgspec.Struct, frozen=True):
    """Events of one partition, appended in one step.

    Attributes:
        writer: who appends it, a receiver process.
        number: larger than that of the writer's batch before, in this partition.
        marks: one for each event, equal for what is a repeat.
        events: stored events.
    """

    writer: str
    number: int
    partition: int
    marks: list[str]
    events: list[msgspec.Raw]


@dataclass(frozen=True)
class Entry:
    """One event as it lies in a partition: `position` is its place there."""

    position: bytes
    event: CallEvent
    stored: bytes


@dataclass(frozen=True)
class CursorState:
    """How far a handler has got in one partition.

    Attributes:
        lag: events not yet read by it.
        in_flight: events read and not yet delivered or parked.
        lanes: parked lanes, each waiting for a redelivery.
        circuit_open: seconds until the next probe while its circuit is open, else None.
    """

    lag: int
    in_flight: int
    lanes: int
    circuit_open: float | None
    delivered: int
    failed: int
    dead: int


def partition_of(event: CallEvent, partitions: int) -> int:
    """The partition that holds all events of this call."""
    return zlib.crc32(event.call.encode("utf-8", "surrogatepass")) % partitions


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
        self._append: AsyncScript = redis.register_script(_APPEND)
        self._behind: AsyncScript = redis.register_script(_CURSOR_BEHIND)
        self._advance: AsyncScript = redis.register_script(_ADVANCE)
        self._rejoin: AsyncScript = redis.register_script(_REJOIN)
        self._attempt: AsyncScript = redis.register_script(_ATTEMPT)

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
        prefix = f"offhook:{{{batch.partition}}}"
        keys = [
            f"{prefix}:inbox",
            f"{prefix}:written:{batch.writer}",
            *(f"{prefix}:awake:{handler}" for handler in handlers),
        ]
        window = int(duplicate_window * 1000)
        arguments: list[Any] = [window, WAKING_MS, f"{prefix}:seen:", batch.number]
        for mark, stored in zip(batch.marks, batch.events, strict=True):
            arguments += (mark, bytes(stored))
        try:
            if self._durability == "server":
                seen, wake = await self._append(keys=keys, args=arguments)
            else:
                seen, wake = await self._append_and_wait(keys, arguments, patience)
        except (RedisError, OSError) as error:
            raise InboxUnavailable(f"Redis did not take the events: {error}") from error
        return set(seen), [handlers[index] for index in wake]

    async def _append_and_wait(
        self, keys: list[str], arguments: list[Any], patience: float
    ) -> tuple[list[int], list[int]]:
        milliseconds = max(1, int(min(patience * 1000, BLOCK_MS) * 0.9))
        # What is waited for is what was written on the same connection.
        async with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.evalsha(self._append.sha, len(keys), *keys, *arguments)
            if self._durability == "disk":
                pipeline.execute_command("WAITAOF", 1, 0, milliseconds)
            else:
                pipeline.execute_command("WAIT", 1, milliseconds)
            appended, confirmed = await pipeline.execute(raise_on_error=False)
        if isinstance(appended, NoScriptError):
            await self.redis.script_load(_APPEND)
            return await self._append_and_wait(keys, arguments, patience)
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
            try:
                await self.redis.xgroup_create(
                    f"offhook:{{{partition}}}:inbox",
                    handler,
                    id="$" if start == "now" else "0",
                    mkstream=True,
                )
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def set_back(self, handler: str, since: datetime) -> int:
        """Set the handler's cursor back to the first event accepted at or after `since`.

        A cursor that has not come so far stays where it is: moved on, it would lose events.

        Returns:
            How many events it will get again.
        """
        position = _position(since)
        count = 0
        for partition in range(self.partitions):
            read, _ = await self._read_since(handler, partition, position)
            if read:
                key = f"offhook:{{{partition}}}:inbox"
                await self.redis.xgroup_setid(key, handler, _before(position))
            count += read
        return count

    async def read_since(self, handler: str, since: datetime) -> tuple[int, datetime | None]:
        """How many events since then the handler has read, and when the first was accepted."""
        position = _position(since)
        found = [
            await self._read_since(handler, partition, position)
            for partition in range(self.partitions)
        ]
        first = min((moment for _, moment in found if moment), default=None)
        return sum(count for count, _ in found), first

    async def _read_since(
        self, handler: str, partition: int, position: str
    ) -> tuple[int, datetime | None]:
        key = f"offhook:{{{partition}}}:inbox"
        try:
            groups = await self.redis.xinfo_groups(key)
        except ResponseError:  # no stream yet
            return 0, None
        last = next((g["last-delivered-id"] for g in groups if g["name"] == handler.encode()), b"0")
        count, first = 0, None
        start: bytes | str = position
        while page := await self._page(key, start, last):
            first = first or datetime.fromtimestamp(_order(page[0])[0] / 1000, UTC)
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
        return int(await self.redis.xlen(f"offhook:{{{partition}}}:inbox"))

    async def behind(self, handler: str, partition: int) -> bool:
        """Does a cursor have events to deliver and nobody who does it? Then mark it as waking."""
        return bool(
            await self._behind(
                keys=[_key(partition, "awake", handler), f"offhook:{{{partition}}}:inbox"],
                args=[handler, WAKING_MS],
            )
        )

    async def state(self, handler: str, partition: int) -> CursorState:
        """How far the handler has got in one partition."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.xinfo_groups(f"offhook:{{{partition}}}:inbox")
            pipeline.hlen(_key(partition, "parked", handler))
            pipeline.pttl(_key(partition, "circuit", handler))
            pipeline.hgetall(_key(partition, "counts", handler))
            groups, lanes, circuit, counts = await pipeline.execute(raise_on_error=False)
        lag = in_flight = 0
        for group in groups if isinstance(groups, list) else ():
            if group["name"] == handler.encode():
                lag = group["lag"]
                in_flight = group["pending"]
                if lag is None:  # the server lost count, after a replay
                    start = b"(" + group["last-delivered-id"]
                    later = await self.redis.xrange(f"offhook:{{{partition}}}:inbox", min=start)
                    lag = len(later or ())
        return CursorState(
            lag=lag,
            in_flight=in_flight,
            lanes=lanes,
            circuit_open=circuit / 1000 if circuit > 0 else None,
            delivered=int(counts.get(b"delivered", 0)),
            failed=int(counts.get(b"failed", 0)),
            dead=int(counts.get(b"dead", 0)),
        )

    async def parked(self, handler: str, partition: int) -> dict[str, str]:
        """The parked lanes of a handler: lane -> id of the event that each waits for."""
        found: Any = await self.redis.hgetall(_key(partition, "parked", handler))
        return {lane.decode(): event_id.decode() for lane, event_id in found.items()}

    async def begin_attempt(self, handler: str, event: CallEvent) -> int:
        """Count an attempt to deliver the event that a parked lane waits for.

        Returns:
            Its number, from 1; 0 when the lane does not wait for this event (any more).
        """
        partition = partition_of(event, self.partitions)
        return int(
            await self._attempt(
                keys=[
                    _key(partition, "parked", handler),
                    _key(partition, "attempts", handler),
                ],
                args=[event.call, event.id],
            )
        )

    async def head(self, handler: str, partition: int, lane: str) -> CallEvent | None:
        """The event that a parked lane waits for."""
        stored = await self.redis.lindex(_key(partition, "lane", handler, lane), 0)
        return from_stored(stored) if stored else None

    async def advance(self, handler: str, event: CallEvent, outcome: str) -> CallEvent | None:
        """The event that a lane waited for is done with: free the lane, or return its next event.

        Args:
            outcome: `delivered` or `dead`, for the counts.

        Raises:
            LeaseLost: the lane does not wait for this event (any more).
        """
        partition = partition_of(event, self.partitions)
        answer = await self._advance(
            keys=[
                _key(partition, "parked", handler),
                _key(partition, "lane", handler, event.call),
                _key(partition, "counts", handler),
                _key(partition, "attempts", handler),
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
                    _key(partition, "parked", handler),
                    _key(partition, "lane", handler, event.call),
                ],
                args=[event.call, event.id, to_stored(event)],
            )
        )

    async def circuit_open_for(self, handler: str, event: CallEvent) -> float:
        """Seconds until the next probe of the handler's circuit; 0 when it is not open."""
        partition = partition_of(event, self.partitions)
        return max(0, await self.redis.pttl(_key(partition, "circuit", handler))) / 1000

    async def count(self, handler: str, event: CallEvent, outcome: str) -> None:
        """Add one to the handler's count of `outcome`."""
        partition = partition_of(event, self.partitions)
        await self.redis.hincrby(_key(partition, "counts", handler), outcome, 1)

    async def watched(self) -> bool:
        """Is somebody listening to what is delivered?"""
        found = await self.redis.pubsub_numsub(DELIVERIES)
        return bool(found and found[0][1])

    async def publish(self, attempts: list[dict[str, Any]]) -> None:
        """Tell those who listen which attempts to deliver were made."""
        await self.redis.publish(DELIVERIES, msgspec.json.encode(attempts))

    async def watch_deliveries(self) -> AsyncIterator[dict[str, Any]]:
        """The attempts to deliver, of all handlers, as they are made. Ends only from outside."""
        async with self.redis.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(DELIVERIES)
            while True:
                message = await channel.get_message(timeout=BLOCK_MS / 1000)
                for attempt in msgspec.json.decode(message["data"]) if message else ():
                    yield attempt

    async def watch_events(self) -> AsyncIterator[CallEvent]:
        """The events of all partitions, as they are accepted. Ends only from outside."""
        streams: Any = {f"offhook:{{{p}}}:inbox": "$" for p in range(self.partitions)}
        while True:
            answer: Any = await self.redis.xread(streams, block=BLOCK_MS)
            for stream, items in answer or ():
                for position, fields in items:
                    streams[stream.decode()] = position
                    yield from_stored(fields[b"e"])

    async def quarantine(self, refused: dict[str, str | bytes], size: int) -> None:
        """Keep a refused callback for a person to look at; the oldest of more than `size` go."""
        if size:
            await self.redis.xadd(QUARANTINE, refused, maxlen=size, approximate=False)  # type: ignore[arg-type]

    async def quarantined(self) -> list[tuple[str, dict[str, bytes]]]:
        """The refused callbacks that are kept, each with its id; the newest first."""
        found: Any = await self.redis.xrevrange(QUARANTINE)
        return [
            (key.decode(), {name.decode(): value for name, value in refused.items()})
            for key, refused in found
        ]

    async def clear_quarantine(self) -> None:
        """Forget the refused callbacks."""
        await self.redis.delete(QUARANTINE)

    async def trim(self, partition: int, before: datetime, handlers: Iterable[str]) -> int:
        """Forget the events accepted before a moment, but none that a cursor has not delivered.

        Returns:
            How many events were forgotten.
        """
        key = f"offhook:{{{partition}}}:inbox"
        oldest = (int(before.timestamp() * 1000), 0)
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
                position = min(position, pending["min"], key=_order)
            oldest = min(oldest, _order(position))
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
        key = f"offhook:{{{partition}}}:inbox"
        wanted = {handler.encode() for handler in handlers}
        lost: Counter[str] = Counter()
        while (excess := await self.redis.xlen(key) - most) > 0:
            page = await self._page(key, "-", b"+", min(excess, 1000))
            for group in await self.redis.xinfo_groups(key):
                name, read = group["name"], _order(group["last-delivered-id"])
                pending: Any = await self.redis.xpending_range(key, name, "-", page[-1], 1000)
                in_flight = [item["message_id"] for item in pending]
                if in_flight:  # or its dispatch would look for them for ever
                    await self.redis.xack(key, name, *in_flight)
                if name in wanted:
                    unread = sum(_order(position) > read for position in page)
                    lost[name.decode()] += unread + len(in_flight)
            milliseconds, number = _order(page[-1])
            following = f"{milliseconds}-{number + 1}"
            await self.redis.xtrim(key, minid=following, approximate=False)
        return +lost

    async def cursors(self) -> set[str]:
        """The handlers that have a cursor, configured or not."""
        names: set[str] = set()
        for partition in range(self.partitions):
            try:
                groups = await self.redis.xinfo_groups(f"offhook:{{{partition}}}:inbox")
            except ResponseError:  # no stream yet
                continue
            names |= {group["name"].decode() for group in groups}
        return names

    async def forget(self, handler: str) -> None:
        """Delete a handler's cursors, and what waits in its parked lanes."""
        for partition in range(self.partitions):
            lanes = await self.parked(handler, partition)
            names = ("awake", "parked", "attempts", "circuit", "counts")
            await self.redis.delete(
                *(_key(partition, name, handler) for name in names),
                *(_key(partition, "lane", handler, lane) for lane in lanes),
            )
            with suppress(ResponseError):  # no stream yet
                await self.redis.xgroup_destroy(f"offhook:{{{partition}}}:inbox", handler)


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
        self._stream = f"offhook:{{{partition}}}:inbox"
        self._awake = _key(partition, "awake", handler)
        self._parked = _key(partition, "parked", handler)
        self._circuit = _key(partition, "circuit", handler)
        self._counts = _key(partition, "counts", handler)
        redis = inbox.redis
        self._take: AsyncScript = redis.register_script(_TAKE)
        self._renew: AsyncScript = redis.register_script(_RENEW)
        self._rest: AsyncScript = redis.register_script(_REST)
        self._acknowledge: AsyncScript = redis.register_script(_ACKNOWLEDGE)
        self._park: AsyncScript = redis.register_script(_PARK)

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

    async def read(self, count: int, block_ms: int) -> list[Entry]:
        """The next events, at most `count`, after waiting at most `block_ms` for the first."""
        answer = await self._redis.xreadgroup(
            self.handler, self.CONSUMER, {self._stream: ">"}, count=count, block=block_ms
        )
        return _entries(answer)

    async def read_pending(self, after: bytes, count: int) -> list[Entry]:
        """What an earlier dispatch read and did not finish, from the oldest, in pages."""
        answer = await self._redis.xreadgroup(
            self.handler, self.CONSUMER, {self._stream: after}, count=count
        )
        return _entries(answer)

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
                _key(self.partition, "lane", self.handler, event.call),
                _key(self.partition, "attempts", self.handler),
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
        await self._redis.set(self._circuit, "open", px=max(1, int(seconds * 1000)))

    async def circuit_open_for(self) -> float:
        """Seconds until the next probe; 0 when the circuit is not open."""
        return max(0, await self._redis.pttl(self._circuit)) / 1000

    async def count(self, outcome: str, by: int = 1) -> None:
        """Add to the handler's count of `outcome`."""
        await self._redis.hincrby(self._counts, outcome, by)


def holder(pid: int) -> str:
    """How the token of a lease begins that this process of this machine holds."""
    return f"{socket.gethostname()}/{pid}/"


def release_lease(redis: BlockingRedis, handler: str, partition: int, pid: int) -> bool:
    """Free the lease of a dispatch whose process on this machine is known to be dead."""
    script = redis.register_script(_RELEASE)
    return bool(script(keys=[_key(partition, "awake", handler)], args=[holder(pid)]))


def _key(partition: int, *names: str) -> str:
    return f"offhook:{{{partition}}}:{':'.join(names)}"


def _entries(answer: Any) -> list[Entry]:
    entries = []
    for _, items in answer or ():
        for position, fields in items:
            if fields:  # trimmed by hand while pending: nothing is left to deliver
                stored = fields[b"e"]
                entries.append(Entry(position, from_stored(stored), stored))
    return entries


def _order(position: bytes | str) -> tuple[int, int]:
    text = position.decode() if isinstance(position, bytes) else position
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number)


def _position(moment: datetime) -> str:
    return f"{max(0, int(moment.timestamp() * 1000))}-0"


def _before(position: str) -> str:
    milliseconds, number = _order(position)
    if number:
        return f"{milliseconds}-{number - 1}"
    return f"{milliseconds - 1}-{2**64 - 1}" if milliseconds else "0-0"
