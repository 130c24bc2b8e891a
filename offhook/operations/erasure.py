"""Erasure: delete from Redis what belongs to the calls of a phone number.

Entries of the inbox are deleted, not replaced, and only those that every handler has got: no event
is lost to a handler, and no position changes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import msgspec
from redis import Redis

from offhook.event import call_name
from offhook.inbox import Inbox, call_index, keys, quarantine
from offhook.inbox.call_store import FOLDED
from offhook.inbox.positions import order_of
from offhook.inbox.record import Record
from offhook.inbox.trimming import Trimming
from offhook.operations import dead_letters
from offhook.settings import Settings

_PAGE = 1000


@dataclass
class Erased:
    """How much was erased, and what must wait.

    Attributes:
        events: entries of the inbox.
        remembered: names from lookups, and values that handlers remember.
        waiting: names of the calls that are kept for now: they go on, a handler has not had all
            their events, or an event waits for its redelivery.
    """

    events: int = 0
    calls: int = 0
    dead_letters: int = 0
    quarantine: int = 0
    remembered: int = 0
    waiting: tuple[str, ...] = ()


class _Name(msgspec.Struct):
    """The part of a stored event that every version has."""

    pbx: str
    call_id: str
    type: str


_name = msgspec.json.Decoder(_Name).decode


async def erase(
    inbox: Inbox,
    rq: Redis,
    settings: Settings,
    is_in: Callable[[str], bool],
    advance: Callable[[float], None] = lambda _: None,
    tenant: str = "",
) -> Erased:
    """Erase a tenant's calls of a number, except those that are still being delivered.

    Args:
        settings: the operator's.
        is_in: whether the number occurs in a text.
        advance: called with the share of the inbox that was searched, from 0 to 1.
    """
    return await _Erasure(inbox, rq, settings, is_in, advance, tenant).run()


class _Erasure:
    def __init__(
        self,
        inbox: Inbox,
        rq: Redis,
        settings: Settings,
        is_in: Callable[[str], bool],
        advance: Callable[[float], None],
        tenant: str,
    ) -> None:
        self._inbox = inbox
        self._redis = inbox.redis
        self._trimming = Trimming(inbox)
        self._rq = rq
        self._handlers = settings.handlers_for(tenant)
        self._tenant = tenant
        self._is_in = is_in
        self._advance = advance
        self._searched = 0
        self._total = 1

    async def run(self) -> Erased:
        erased = Erased()
        partitions = [*range(self._inbox.partitions), *await self._inbox.beyond()]
        lengths = [await self._inbox.length(each, self._tenant) for each in partitions]
        self._total = 2 * sum(lengths) or 1
        letters = await asyncio.to_thread(self._dead_letters)
        calls = {letter.event.call for letter in letters}
        for partition in partitions:
            calls |= await self._stored_calls(partition)
            async for _, call, _, mentions in self._entries(partition):
                if mentions:
                    calls.add(call)
        waiting: set[str] = set()
        for partition in partitions:
            waiting |= calls & await self._unfinished(partition)
        for partition in partitions:
            erased.events += await self._erase_events(partition, calls, waiting)
        for partition in partitions:
            erased.calls += await self._erase_calls(partition, calls - waiting)
        erased.dead_letters = await asyncio.to_thread(dead_letters.discard, self._rq, letters)
        erased.quarantine = await self._erase_quarantine()
        erased.remembered = await self._erase_remembered()
        erased.waiting = tuple(sorted(waiting))
        return erased

    def _dead_letters(self) -> Sequence[dead_letters.DeadLetter]:
        # Also those of the operator's handlers that get the tenant's events.
        return [
            each
            for each in dead_letters.find(self._rq)
            if each.event.tenant == self._tenant and self._mentions(msgspec.json.encode(each.event))
        ]

    async def _stored_calls(self, partition: int) -> set[str]:
        """The calls of the number that are in the store."""
        names: Any = await self._redis.zrange(keys.calls(partition, self._tenant), 0, -1)
        found: set[str] = set()
        for at in range(0, len(names), _PAGE):
            page = [name.decode() for name in names[at : at + _PAGE]]
            states: Any = await self._redis.mget([keys.call(partition, name) for name in page])
            kept = zip(page, states, strict=True)
            found |= {name for name, state in kept if state and self._mentions(state)}
        return found

    async def _unfinished(self, partition: int) -> set[str]:
        """The calls that go on, or with an event that waits for its redelivery or its handler."""
        names: set[str] = set()
        for key in (keys.live(partition), keys.settling(partition)):
            members: Any = await self._redis.zrange(key, 0, -1)
            names |= {name.decode() for name in members}
        lanes: Any = await self._redis.hkeys(keys.parked(partition))
        return names | {lane.decode().partition(" ")[2] for lane in lanes}

    async def _erase_events(self, partition: int, calls: set[str], waiting: set[str]) -> int:
        """Delete the events of the calls, and add to `waiting` those that a handler has not had."""
        undelivered = await self._trimming.undelivered_from(partition, self._handlers, self._tenant)
        folded = order_of(await self._trimming.folded(partition, self._tenant))
        positions: dict[str, list[bytes]] = {}
        async for position, call, type_, mentions in self._entries(partition):
            if call in calls or mentions:
                positions.setdefault(call, []).append(position)
                order = order_of(position)
                if order >= undelivered or (order > folded and type_ in FOLDED):
                    waiting.add(call)
        finished = positions.keys() - waiting
        doomed = [each for call in finished for each in positions[call]]
        for at in range(0, len(doomed), _PAGE):
            await self._redis.xdel(keys.inbox(partition, self._tenant), *doomed[at : at + _PAGE])
        await Record(self._inbox).erase(partition, finished)
        return len(doomed)

    async def _erase_calls(self, partition: int, calls: set[str]) -> int:
        return await call_index.erase(self._inbox, partition, calls)

    async def _erase_quarantine(self) -> int:
        found = [
            key
            for key, refused in await quarantine.kept(self._redis, self._tenant)
            if any(self._mentions(value) for value in refused.values())
        ]
        if found:
            await quarantine.remove(self._redis, found, self._tenant)
        return len(found)

    async def _erase_remembered(self) -> int:
        """Delete names by number that lookups gave, and what handlers remember of the number."""
        erased = 0
        whose = f"{self._tenant}/*" if self._tenant else "*"
        for pattern in (
            keys.memory(whose, "*"),
            keys.memory(f"lookups.{whose}", "*"),
            keys.lookup_name(whose, "*"),
        ):
            async for key in self._redis.scan_iter(pattern, count=_PAGE):
                if not self._tenant and _is_a_tenants(key):
                    continue
                value = await self._redis.get(key)
                if self._mentions(key.replace(b":", b" ")) or (value and self._mentions(value)):
                    erased += await self._redis.delete(key)
        return erased

    async def _entries(self, partition: int) -> AsyncIterator[tuple[bytes, str, str, bool]]:
        """Position, call and type of each event, and whether it mentions the number."""
        start, stream = "-", keys.inbox(partition, self._tenant)
        while True:
            page: Any = await self._redis.xrange(stream, min=start, count=_PAGE)
            for position, fields in page:
                stored = fields[b"e"]
                name = _name(stored)
                call = call_name(name.pbx, name.call_id, self._tenant)
                yield position, call, name.type, self._mentions(stored)
            self._searched += len(page)
            self._advance(min(1.0, self._searched / self._total))
            if len(page) < _PAGE:
                return
            start = f"({page[-1][0].decode()}"

    def _mentions(self, stored: bytes | str) -> bool:
        text = stored if isinstance(stored, str) else stored.decode("utf-8", "replace")
        return self._is_in(text) or ("%" in text and self._is_in(unquote_plus(text)))


def _is_a_tenants(key: bytes) -> bool:
    """Return whether a key has the full name of a tenant's handler or lookup."""
    return b"/" in key.split(b":")[2]
