"""`Calls`: the calls of the inbox, while they go on and for `keep_days` after.

Only the server that holds the lease of the partition writes, in one step with the position up to
which events are folded: an event is folded into its call, and the events that follow from it are
appended, exactly once.
"""

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

import msgspec
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from offhook.call import Call, Kind
from offhook.calls import (
    CallState,
    fold,
    from_state,
    name_of_latest,
    summarize,
    terms,
    to_state,
    used_again,
)
from offhook.errors import FoldMoved, LeaseLost, TemporaryError
from offhook.event import CALLBACKS, CallEvent, EventType, tenant_of, to_stored
from offhook.inbox import keys
from offhook.inbox.entries import events_of
from offhook.inbox.partition import Partition
from offhook.inbox.positions import START, position_at, position_before
from offhook.inbox.scripts import script
from offhook.inbox.stream import Inbox

FOLDED = frozenset({*CALLBACKS, EventType.CALL_RECORD})  # folded into calls
_PAGE = 500
_encode = msgspec.json.Encoder().encode


class Kept(msgspec.Struct, frozen=True, gc=False):
    """One call in the store.

    Attributes:
        name: as `CallEvent.call`; `PBX/CALLID~2` for the second call with this CallID, and so on.
        first, last: positions in the inbox of the first and the last event folded into it.
        partition: where it is.
    """

    name: str
    state: CallState
    first: str
    last: str
    partition: int

    def dump(self) -> bytes:
        return f"{self.first} {self.last} ".encode() + to_state(self.state)


class CallChange(msgspec.Struct, frozen=True, gc=False):
    """A call to save.

    Attributes:
        events: the events about it, to append.
        settles: when its settle window ends, in ms since 1970; None if none is open.
        live: when its last event came, in ms since 1970; None if it is closed.
        before: the call as it is in the store; None if it is not.
    """

    kept: Kept
    events: list[CallEvent]
    settles: int | None = None
    live: int | None = None
    before: CallState | None = None


class CallSave(NamedTuple):
    """Calls of a tenant to save in one step.

    Attributes:
        tenant: whose stream the events about them are appended to.
        positions: from where and to where the stream's events were folded; None: they were not.
        keep_days: how long a call is kept after its last event.
    """

    tenant: str
    changes: Sequence[CallChange]
    positions: tuple[bytes, bytes] | None
    keep_days: float


class Calls:
    """The calls of an inbox."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._redis = inbox.redis
        self._save: AsyncScript = self._redis.register_script(script("save_calls"))

    async def load(self, partition: int, names: Sequence[str]) -> dict[str, Kept]:
        """The calls of these names that are in the store, by name."""
        if not names:
            return {}
        found: Any = await self._redis.mget([keys.call(partition, name) for name in names])
        return _read_all(partition, names, found)

    async def load_each(self, names: Mapping[int, Sequence[str]]) -> dict[str, Kept]:
        """The calls of these names in each partition, by name; in one round trip."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for partition, some in names.items():
                pipeline.mget([keys.call(partition, name) for name in some])
            found = await pipeline.execute()
        kept: dict[str, Kept] = {}
        for (partition, some), values in zip(names.items(), found, strict=True):
            kept |= _read_all(partition, some, values)
        return kept

    async def load_with_latest(self, partition: int, names: Sequence[str]) -> dict[str, Kept]:
        """The calls of these names, and the latest call of each CallID that is used again."""
        kept = await self.load(partition, names)
        latest = [name_of_latest(name, each.state) for name, each in kept.items()]
        return kept | await self.load(partition, [name for name in latest if name not in kept])

    async def save(self, partition: Partition, saves: Sequence[CallSave]) -> None:
        """Save calls of tenants, append the events about them, and note how far each is folded.

        Each save is one step; all are sent in one round trip.

        Args:
            partition: with the server's lease.

        Raises:
            LeaseLost: another server serves the partition; nothing was saved.
            FoldMoved: a stream is folded to another position than expected; that was not saved.
            OutOfMemoryError: the server is too full; nothing was saved.
        """
        if len(saves) == 1:
            names, arguments = _as_step(partition, saves[0])
            answers = [await self._save(keys=names, args=arguments)]
        else:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for each in saves:
                    names, arguments = _as_step(partition, each)
                    await self._save(keys=names, args=arguments, client=pipeline)
                answers = await pipeline.execute()
        if -1 in answers:
            raise LeaseLost(f"another process serves partition {partition.number}")
        for each, answer in zip(saves, answers, strict=True):
            if answer == 0:
                raise FoldMoved(f"partition {partition.number} is not folded to {each.positions}")

    async def settling(self, partition: int) -> dict[str, int]:
        """The calls whose settle window is open, and when it ends, in ms since 1970."""
        found: Any = await self._redis.zrange(keys.settling(partition), 0, -1, withscores=True)
        return {name.decode(): int(score) for name, score in found}

    async def silent(self, partition: int, before: datetime, count: int = _PAGE) -> list[str]:
        """Live calls without an event since then, oldest first."""
        found: Any = await self._redis.zrange(
            keys.live(partition), 0, _ms(before), byscore=True, offset=0, num=count
        )
        return [name.decode() for name in found]

    async def drop(self, partition: int, names: Sequence[str]) -> None:
        """Take calls that have expired off the lists of live and settling calls."""
        if names:
            await self._redis.zrem(keys.live(partition), *names)
            await self._redis.zrem(keys.settling(partition), *names)

    async def forget(self, partition: int, before: Mapping[str, datetime]) -> None:
        """Take each tenant's calls that began before then off its list; they expire themselves."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for tenant, moment in before.items():
                pipeline.zremrangebyscore(keys.calls(partition, tenant), 0, _ms(moment))
            await pipeline.execute()

    async def live(self) -> int:
        """Return how many calls are not closed."""
        return sum(
            [int(await self._redis.zcard(keys.live(p))) for p in range(self._inbox.partitions)]
        )

    async def get(self, name: str) -> Kept | None:
        """The call of a name, `PBX/CALLID`; None if it is not in the store."""
        for partition in self._inbox.numbering.candidates(name):
            if found := await self.load(partition, [name]):
                return found[name]
        return None

    async def of(
        self, event: CallEvent, kind: Kind | None, region: str | None, partition: int
    ) -> Call:
        """The call of an event as it is known now, with at least that event folded into it.

        Args:
            partition: that of the event.

        Raises:
            TemporaryError: Redis does not answer.
        """
        try:
            kept = await self.load_with_latest(partition, [event.call])
        except RedisError as error:
            raise TemporaryError(f"cannot read the call from Redis: {error}") from error
        state = kept[event.call].state if event.call in kept else None
        if event.summary is not None:
            return summarize(state, region) if state else event.summary
        latest = kept.get(name_of_latest(event.call, state)) if state else None
        if latest and _began(latest.state) <= _ms(event.occurred or event.received):
            state = latest.state
        if state and used_again(state, event):
            state = None
        return summarize(fold(state, event, kind), region)

    async def since(
        self, began: datetime, tenant: str = "", until: datetime | None = None
    ) -> AsyncIterator[Kept]:
        """A tenant's calls that began since then, newest first.

        Args:
            until: only those that began by then.
        """
        last = _ms(until) if until else "+inf"
        listed: list[tuple[float, bytes, int]] = []
        for partition in range(self._inbox.partitions):
            found: Any = await self._redis.zrange(
                keys.calls(partition, tenant), _ms(began), last, byscore=True, withscores=True
            )
            listed += [(score, name, partition) for name, score in found]
        listed.sort(reverse=True)
        for at in range(0, len(listed), _PAGE):
            page = listed[at : at + _PAGE]
            names: defaultdict[int, list[str]] = defaultdict(list)
            for _, name, partition in page:
                names[partition].append(name.decode())
            kept = await self.load_each(names)
            for _, name, _ in page:
                if name.decode() in kept:
                    yield kept[name.decode()]

    async def first_events(self, kept: Sequence[Kept]) -> dict[str, CallEvent]:
        """The first event of each call, by the call's name, where the inbox still has it."""
        found: dict[str, CallEvent] = {}
        for at in range(0, len(kept), _PAGE):
            page = kept[at : at + _PAGE]
            async with self._redis.pipeline(transaction=False) as pipeline:
                for each in page:
                    stream = keys.inbox(each.partition, tenant_of(each.name))
                    pipeline.xrange(stream, each.first, each.first)
                entries: Any = await pipeline.execute()
            found |= {e.call: e for items in entries for e in events_of(items)}
        return found

    async def events(self, kept: Kept) -> list[CallEvent]:
        """The events folded into a call, as far as the inbox still has them."""
        stream = keys.inbox(kept.partition, tenant_of(kept.name))
        found: list[CallEvent] = []
        start = kept.first
        names = (kept.name, kept.name.rpartition("~")[0])  # its records, and its callbacks
        while True:
            page: Any = await self._redis.xrange(stream, start, kept.last, _PAGE)
            found += [e for e in events_of(page) if e.call in names and e.type in FOLDED]
            if len(page) < _PAGE:
                return found
            start = f"({page[-1][0].decode()}"


def _as_step(partition: Partition, save: CallSave) -> tuple[list[str], list[Any]]:
    """The keys and arguments of the script that saves calls."""
    number, tenant, keep_ms = partition.number, save.tenant, int(save.keep_days * 86_400_000)
    script_keys = [
        keys.serving(number),
        keys.inbox(number, tenant),
        keys.calls(number, tenant),
        keys.live(number),
        keys.settling(number),
        keys.last(number, tenant),
        keys.folded(number),
        keys.ready(number),
        keys.unfinished(number),
        keys.saved(number),
    ]
    arguments = [
        partition.lease.token,
        partition.next_save(),
        tenant,
        keep_ms,
        keys.call(number, ""),
        *(save.positions or ("", "")),
        keys.index(number, "", tenant),
        int(time.time() * 1000) - keep_ms,
        _encode(_listed(save.changes)),
        *[change.kept.dump() for change in save.changes],
        *[to_stored(event) for change in save.changes for event in change.events],
    ]
    return script_keys, arguments


async def caught_up(inbox: Inbox, until: datetime, tenant: str = "") -> bool:
    """Return whether a tenant's events accepted before then are folded into their calls."""
    last = position_before(position_at(until))
    for partition in range(inbox.partitions):
        position = cast(Any, await inbox.redis.hget(keys.folded(partition), tenant)) or START
        stream = keys.inbox(partition, tenant)
        # Those of other types may be many: a PBX may lose all its phones at once.
        while page := cast(Any, await inbox.redis.xrange(stream, b"(" + position, last, _PAGE)):
            if any(event.type in FOLDED for event in events_of(page)):
                return False
            position = page[-1][0]
    return True


def _read_all(
    partition: int, names: Sequence[str], values: Sequence[bytes | None]
) -> dict[str, Kept]:
    return {
        name: _read(name, value, partition)
        for name, value in zip(names, values, strict=True)
        if value is not None
    }


def _read(name: str, value: bytes, partition: int) -> Kept:
    first, last, state = value.split(b" ", 2)
    return Kept(name, from_state(state), first.decode(), last.decode(), partition)


def _listed(changes: Sequence[CallChange]) -> tuple[list[Any], ...]:
    """The changes of the lists of calls; see save_calls.lua."""
    names = [change.kept.name for change in changes]
    began: list[Any] = []
    live: list[Any] = []
    closed: list[Any] = []
    settling: list[Any] = []
    settled: list[Any] = []
    for name, change in zip(names, changes, strict=True):
        began += (_began(change.kept.state), name)
        if change.live is None:
            closed.append(name)
        else:
            live += (change.live, name)
        if change.settles is None:
            settled.append(name)
        else:
            settling += (change.settles, name)
    return names, began, live, closed, settling, settled, _terms(changes)


def _terms(changes: Sequence[CallChange]) -> list[tuple[str, list[int], list[int]]]:
    """The changes of the index; see save_calls.lua."""
    changed: defaultdict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for number, change in enumerate(changes, 1):
        state, before = change.kept.state, change.before
        if state == before:
            continue
        summaries = [event.summary for event in change.events if event.summary]
        outcome = summaries[-1].outcome if summaries else None
        now, then = terms(state, outcome), terms(before) if before else set[str]()
        for term in now - then:
            changed[term][0].append(number)
        for term in then - now:
            changed[term][1].append(number)
    return [(term, *changed[term]) for term in sorted(changed)]


def _began(state: CallState) -> int:
    """The first moment known of a call, in ms since 1970."""
    moments = [part.first for part in state.parts]
    moments += [record.began for part in state.parts for record in part.records]
    return min([at for at in moments if at is not None]) // 1000


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
