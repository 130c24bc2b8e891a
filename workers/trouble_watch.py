"""`TroubleWatch`: announces Offhook's own trouble, each change once.

It compares what Redis says now with the state that it kept. The new state and the events are kept
in one step, and an event has its id by then. So a process that is killed announces nothing twice,
and several schedulers announce it once.

A handler does not hear of itself, and what became of a delivery of such an event is not announced:
two handlers that report each other's trouble cannot keep each other busy.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from redis.asyncio import Redis

from offhook.announcements import announce
from offhook.event import CallEvent, from_stored, to_stored
from offhook.inbox import Inbox, keys, quarantine, refused
from offhook.inbox.refused import CallbackOutcome
from offhook.redis_servers import answers, memory_used
from offhook.settings import Settings
from workers import trouble_events

log = logging.getLogger("offhook.trouble")

EVERY = 10.0  # seconds between looks
IN_A_ROW = 5  # failed attempts without a delivery: as many as open a circuit
HOLD = 60.0  # seconds without trouble until it is over; so it cannot come and go in every look
QUIET = 600.0  # seconds from one event about dead letters, or the journal, to the next
FULL, ROOM = 0.8, 0.7  # of maxmemory: it is filling from there, and no more from here
_REPEAT = 86_400.0  # seconds in which an event that is announced again is dropped
_COUNTS = ("delivered", "failed", "failed-of-trouble", "dead", "dead-of-trouble")


class HandlerTrouble(msgspec.Struct, omit_defaults=True):
    """What is kept of a handler.

    Attributes:
        delivered, failed: totals; `failed` as of its last delivery.
        dead: number of dead letters that were announced.
        told_dead, since: when they were, and when `handler-failing` was, in seconds since 1970.
        good_since: it fails, and nothing has since then.
    """

    delivered: int = 0
    failed: int = 0
    dead: int = 0
    told_dead: float = 0.0
    since: float | None = None
    good_since: float | None = None


class StoreTrouble(msgspec.Struct, omit_defaults=True):
    """What is kept of the inbox and the journals.

    Attributes:
        filling: `inbox-filling` was announced, and there is no room yet.
        journaled: number of events that was announced, at the time `told`.
    """

    filling: bool = False
    journaled: int = 0
    told: float = 0.0


def look_at_handler(
    name: str,
    before: HandlerTrouble | None,
    counts: Mapping[str, int],
    now: float,
    *,
    is_open: bool,
) -> tuple[HandlerTrouble, list[CallEvent]]:
    """The new state of a handler, and what to announce.

    Args:
        before: None at the first look, which announces only an open circuit.
        counts: attempts by outcome.
        is_open: whether its circuit is open.
    """
    failed = counts["failed"] - counts["failed-of-trouble"]
    dead = counts["dead"] - counts["dead-of-trouble"]
    delivered = counts["delivered"]
    if before is None or delivered < before.delivered:  # the first look, or it was forgotten
        before = HandlerTrouble(delivered, failed, dead)
    events: list[CallEvent] = []
    progress = delivered > before.delivered
    after = msgspec.structs.replace(
        before, delivered=delivered, failed=failed if progress else before.failed
    )
    in_a_row = failed - after.failed
    fails = is_open or in_a_row >= IN_A_ROW
    if after.since is None:
        if fails:
            after.since = now
            events += trouble_events.handler_failing(name, in_a_row, circuit_open=is_open)
    elif fails:
        after.good_since = None
    elif progress or after.good_since is not None:
        after.good_since = after.good_since or now
        if now - after.good_since >= HOLD:
            events += trouble_events.handler_recovered(name, now - after.since)
            after.since = after.good_since = None
    if dead > after.dead and now - after.told_dead >= QUIET:
        events += trouble_events.dead_letters(name, dead - after.dead)
        after.dead, after.told_dead = dead, now
    return after, events


def look_at_stores(
    before: StoreTrouble | None, used: float, journaled: int, now: float
) -> tuple[StoreTrouble, list[CallEvent]]:
    """The same for the inbox and the journals.

    Args:
        used: the part of `maxmemory` in use.
        journaled: number of events that ever went to a journal.
    """
    after = msgspec.structs.replace(before or StoreTrouble(journaled=journaled))
    events: list[CallEvent] = []
    if used >= FULL and not after.filling:
        after.filling = True
        events += trouble_events.inbox_filling(used)
    elif used < ROOM:
        after.filling = False
    if journaled > after.journaled and now - after.told >= QUIET:
        events += trouble_events.journal_used(journaled - after.journaled)
        after.journaled, after.told = journaled, now
    return after, events


class TroubleWatch:
    """Looks for trouble every `EVERY` seconds, or less often if that takes long."""

    def __init__(self, settings: Settings, inbox: Inbox) -> None:
        self._settings = settings
        self._inbox = inbox
        self._look_at = 0.0

    async def round(self) -> None:
        """Look if it is time to, and no other scheduler does.

        Raises:
            RedisError, InboxUnavailable: the next look announces the same.
        """
        began = time.monotonic()
        if began < self._look_at:
            return
        mark = keys.scheduled("trouble")
        if not await self._inbox.redis.set(mark, "", nx=True, px=int(EVERY * 1000)):
            return
        async with asyncio.timeout(EVERY * 0.9):  # while the mark keeps others from looking
            await self.look(time.time())
        self._look_at = began + 20 * (time.monotonic() - began)

    async def look(self, now: float) -> None:
        """Look once."""
        settings, redis = self._settings, self._inbox.redis
        await tell(settings, self._inbox)  # first: while the inbox takes nothing, collect nothing
        stored: Any = await redis.hgetall(keys.TROUBLE)
        states: dict[str, bytes] = {name.decode(): each for name, each in stored.items()}
        changed: dict[str, bytes] = {}
        events: list[CallEvent] = []

        def keep(name: str, state: msgspec.Struct, found: Iterable[CallEvent]) -> None:
            packed = msgspec.json.encode(state)
            if packed != states.pop(name, None):
                changed[name] = packed
            events.extend(found)

        names = [*settings.all_handlers]
        counts = await self._counts(names)
        opened = await answers(redis, [("EXISTS", keys.circuit(name)) for name in names])
        for name, its, is_open in zip(names, counts, opened, strict=True):
            field = f"handler {name}"
            before = _decoded(states.get(field), HandlerTrouble)
            keep(field, *look_at_handler(name, before, its, now, is_open=bool(is_open)))
        before_stores = _decoded(states.get("stores"), StoreTrouble)
        journaled = (await refused.totals(redis))[CallbackOutcome.JOURNALED]
        used = await memory_used(self._inbox.redis)
        keep("stores", *look_at_stores(before_stores, used, journaled, now))
        gone = [name for name in states if name.startswith("handler ")]
        await note(redis, changed, events, gone)
        await tell(settings, self._inbox)

    async def _counts(self, names: list[str]) -> list[dict[str, int]]:
        """The attempts of each handler by outcome, over all partitions."""
        numbers = range(self._inbox.partitions)
        found = await answers(
            self._inbox.redis,
            [
                ("HMGET", keys.counts(number, name), *_COUNTS)
                for name in names
                for number in numbers
            ],
        )
        return [
            {
                outcome: sum(int(each[index] or 0) for each in found[at : at + len(numbers)])
                for index, outcome in enumerate(_COUNTS)
            }
            for at in range(0, len(found), len(numbers))
        ]


async def note(
    redis: Redis,
    states: Mapping[str, bytes],
    events: Iterable[CallEvent],
    gone: Iterable[str] = (),
) -> None:
    """Keep states, and events to announce, in one step.

    Args:
        gone: the names of states to delete.
    """
    fields: dict[Any, Any] = dict(states)
    unannounced: dict[Any, Any] = {event.id: to_stored(event) for event in events}
    async with redis.pipeline(transaction=True) as pipeline:
        if fields:
            pipeline.hset(keys.TROUBLE, mapping=fields)
        if unannounced:
            pipeline.hset(keys.UNANNOUNCED, mapping=unannounced)
        for name in gone:
            pipeline.hdel(keys.TROUBLE, name)
        await pipeline.execute()


async def tell(settings: Settings, inbox: Inbox) -> int:
    """Announce what is kept to be announced. Return how many events that was.

    Raises:
        InboxUnavailable: it stays.
    """
    stored: Any = await inbox.redis.hgetall(keys.UNANNOUNCED)
    events: list[CallEvent] = []
    for name, each in sorted(stored.items()):
        try:
            events.append(from_stored(each))
        except (ValueError, RecursionError) as error:
            log.error("an event about trouble cannot be read, set aside: %s", error)
            reason = f"an event about trouble that cannot be read: {error}"
            await quarantine.set_aside(inbox.redis, each, reason, settings.quarantine_size, "")
            await inbox.redis.hdel(keys.UNANNOUNCED, name)
    if events:
        await announce(settings, inbox, events, window=_REPEAT)
        await inbox.redis.hdel(keys.UNANNOUNCED, *stored)
    return len(events)


def _decoded(stored: bytes | None, kind: type[Any]) -> Any:
    return None if stored is None else msgspec.json.decode(stored, type=kind)
