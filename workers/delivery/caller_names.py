"""`Names`: who is calling, as the lookups know it, put into an event right before its delivery.

event → who is outside → **the first lookup that knows the number** → the event, with the name

offhook:lookup:LOOKUP:name:NUMBER     the name that it gave, or nothing: it knows none. Expires
offhook:lookup:LOOKUP:asking:NUMBER   set while one process asks it
offhook:lookup:LOOKUP:failures        how often in a row it has failed. Expires: that is the pause
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

from msgspec.structs import replace
from redis.asyncio import Redis
from redis.exceptions import RedisError

from offhook.call import Call, Direction, Party
from offhook.errors import ConfigError
from offhook.event import CallEvent
from offhook.http import Http
from offhook.inbox import keys
from offhook.phone_number import Number
from offhook.plugins import PluggedLookup, plug_lookup
from offhook.settings import Settings
from offhook.ttl_cache import TtlCache
from workers.delivery.attempt import sentence
from workers.delivery.redis_memory import RedisMemory

log = logging.getLogger("offhook.names")

UNKNOWN = 30.0  # seconds that it is remembered that nobody has a number: somebody may add it
FAILED = 5.0  # seconds that an event's other handlers do not ask again what has just failed
FAILURES = 3  # in a row, then the lookup is not asked
PAUSE = 30.0  # seconds, since the last of them
RECENT = 2.0  # seconds that a process does not look whether Redis says so still
POLL = 0.02  # seconds from one look to the next at what another process is asking
LOG_EVERY = 60.0  # seconds
THREADS = 4  # of one lookup
LONGEST = 20  # digits of a number; E.164 has 15

Side = Literal["caller", "called"]
T = TypeVar("T", CallEvent, Call)


class Names:
    """Puts the names into events. None of it raises: an event goes on without a name."""

    def __init__(
        self, lookups: Sequence[PluggedLookup], redis: Redis, http: Http, region: str | None
    ) -> None:
        self._lookups = [_Asked(lookup, redis, http) for lookup in lookups]
        self._region = region

    async def named(self, event: CallEvent) -> CallEvent:
        """The event with the name of who is outside, where a lookup knows it."""
        call = event.summary
        told = call or event
        side = _outside(told.direction, told.caller, told.called)
        name = side and await self._name_of(getattr(told, side), event)
        if not (side and name):
            return event
        return replace(_with_name(event, side, name), summary=call and _with_name(call, side, name))

    async def named_call(self, call: Call, event: CallEvent) -> Call:
        """The same for the call of an event that has been named."""
        side = _outside(call.direction, call.caller, call.called)
        if side is None:
            return call
        party: Party = getattr(call, side)
        for known in (event.caller, event.called):
            if known.number == party.number:
                name = known.name
                break
        else:
            name = await self._name_of(party, event)
        return _with_name(call, side, name) if name else call

    async def _name_of(self, party: Party, event: CallEvent) -> str | None:
        number = Number.read(party.number or "", self._region)
        if number.is_nobodys or len(number.digits) > LONGEST:
            return None
        for lookup in self._lookups:
            name = await lookup.name_of(number, event)
            if name:
                return name
        return None

    def close(self) -> None:
        """End the threads that are idle; one that hangs cannot be stopped."""
        for lookup in self._lookups:
            lookup.threads.shutdown(wait=False)


@asynccontextmanager
async def naming(settings: Settings, redis: Redis) -> AsyncIterator[Names | None]:
    """The names that are configured; None when no lookup is.

    One that is configured wrongly since the workers started is left out, and the log says so.
    """
    lookups = []
    for name, table in settings.lookups.items():
        try:
            lookups.append(plug_lookup(name, table))
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything while it is imported
            problems = error.problems if isinstance(error, ConfigError) else [sentence(error)]
            log.error("lookup %s is left out: %s", name, "; ".join(problems))
    if not lookups:
        yield None
        return
    async with Http() as http:
        names = Names(lookups, redis, http, settings.region)
        try:
            yield names
        finally:
            names.close()


def _outside(direction: Direction | None, caller: Party, called: Party) -> Side | None:
    """Which side is outside the PBX; None: neither is. As the fold tells it of a whole call."""
    if direction == "in" and (caller.extension is None or called.did is not None):
        return "caller"
    if direction == "out" and called.extension is None and "*" not in (called.number or ""):
        return "called"
    return None


def _with_name(told: T, side: Side, name: str) -> T:
    return replace(told, **{side: replace(getattr(told, side), name=name)})


class _Asked:
    """One lookup: what is remembered of its answers, and whether to ask it."""

    def __init__(self, lookup: PluggedLookup, redis: Redis, http: Http) -> None:
        self.threads = ThreadPoolExecutor(THREADS, "lookup")
        self._lookup = lookup
        self._redis = redis
        self._http = http
        self._memory = RedisMemory(redis, f"lookups.{lookup.name}")
        self._failures_key = keys.lookup_failures(lookup.name)
        self._recent = TtlCache[str, str](min(RECENT, lookup.lifetime))
        self._failures = 0  # in a row, of one whose answers are not remembered
        self._paused_until = 0.0
        self._log_at = 0.0

    async def name_of(self, number: Number, event: CallEvent) -> str:
        """The name; empty when it knows none, or does not say in time."""
        key = number.e164 or number.digits
        known = self._recent.get(key)
        if known is not None:
            return known
        if not self._lookup.lifetime:
            return await self._unremembered(number, event)
        try:
            known = await self._remembered(key, number, event)
        except RedisError as error:
            self._complain(f"Redis does not answer: {error}", event)
            return ""
        self._recent.keep(key, known)
        return known

    async def _remembered(self, key: str, number: Number, event: CallEvent) -> str:
        """What Redis knows of it; if nothing, ask: one process does, the others wait for it."""
        known = await self._known_or_ours(key)
        if known is not None:
            return known
        name = await self._ask(number, event)
        await self._keep(key, name)
        return name or ""

    async def _known_or_ours(self, key: str) -> str | None:
        """The answer, empty when nobody shall be asked; None: it is for us to ask now."""
        asking = keys.lookup_asking(self._lookup.name, key)
        patience = self._lookup.policy.timeout
        until = time.monotonic() + patience
        known = await self._known(key)
        while known is None and time.monotonic() < until:
            # Who was killed while it asked is waited for no longer than it could have taken.
            expiry = int(1000 * patience) + 500
            if await self._redis.set(asking, "", nx=True, px=expiry):
                known = await self._known(key)  # by who asked right before
                if known is None:
                    return None
                await self._redis.delete(asking)
            else:
                await asyncio.sleep(POLL)
                known = await self._known(key)
        return known or ""

    async def _known(self, key: str) -> str | None:
        """The answer; empty when the lookup is left alone; None: there is none."""
        found: Any = await self._redis.mget(
            keys.lookup_name(self._lookup.name, key), self._failures_key
        )
        if found[0] is not None:
            return str(found[0], "utf-8")
        return "" if int(found[1] or 0) >= FAILURES else None

    async def _keep(self, key: str, name: str | None) -> None:
        """Have it known how the question ended."""
        seconds = self._lookup.lifetime
        if not name:
            seconds = min(seconds, FAILED if name is None else UNKNOWN)
        name_key = keys.lookup_name(self._lookup.name, key)
        async with self._redis.pipeline(transaction=True) as together:
            together.set(name_key, name or "", px=max(1, int(1000 * seconds)))
            together.delete(keys.lookup_asking(self._lookup.name, key))
            if name is None:
                together.incr(self._failures_key)
                together.pexpire(self._failures_key, int(1000 * PAUSE))
            else:
                together.delete(self._failures_key)
            await together.execute()

    async def _unremembered(self, number: Number, event: CallEvent) -> str:
        if time.monotonic() < self._paused_until:
            return ""
        name = await self._ask(number, event)
        self._failures = self._failures + 1 if name is None else 0
        if self._failures == FAILURES:
            self._failures, self._paused_until = 0, time.monotonic() + PAUSE
        return name or ""

    async def _ask(self, number: Number, event: CallEvent) -> str | None:
        """Ask it: the name, empty when it knows none, None when it failed."""
        try:
            name = await self._lookup.ask(
                number, event, http=self._http, threads=self.threads, memory=self._memory
            )
        except Exception as error:  # noqa: BLE001 - a lookup may raise anything
            self._complain(_without(number, sentence(error)), event)
            return None
        return name or ""

    def _complain(self, why: str, event: CallEvent) -> None:
        """Say it, but not once for every event."""
        if time.monotonic() < self._log_at:
            return
        self._log_at = time.monotonic() + LOG_EVERY
        log.warning(
            "lookup %s failed, events go on without its names: %s",
            self._lookup.name,
            why,
            extra={"event": event.id, "call": event.call, "extension": event.extension},
        )


def _without(number: Number, text: str) -> str:
    """What the other side said, without the number: it is nobody's business in a log."""
    for form in sorted({*number.forms, number.text}, key=len, reverse=True):
        text = text.replace(form, "…")
    return text
