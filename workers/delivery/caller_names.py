"""`CallerNames`: adds the external party's name to an event right before its delivery.

event → the external party → **the first lookup that knows the number** → the event with the name

offhook:lookup:LOOKUP:name:NUMBER     the name, or empty if the lookup knows none; expires
offhook:lookup:LOOKUP:asking:NUMBER   set while one process asks the lookup
offhook:lookup:LOOKUP:failures        consecutive failures; expires after the pause
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

from msgspec.structs import replace
from redis.asyncio import Redis
from redis.exceptions import RedisError

from offhook.call import Call, Direction, Party
from offhook.dialects.encoding import corrected
from offhook.errors import ConfigError
from offhook.event import CallEvent
from offhook.http import Http
from offhook.inbox import keys
from offhook.phone_number import Number
from offhook.plugins import PluggedLookup, plug_lookup
from offhook.settings import PbxSettings, Settings, is_own_code, tenant_of_plugin
from offhook.ttl_cache import TtlCache
from workers import version
from workers.delivery.attempt import sentence
from workers.delivery.redis_memory import RedisMemory

log = logging.getLogger("offhook.names")

UNKNOWN_LIFETIME = 30.0  # seconds to cache that a number is unknown: it may be added any time
FAILURE_LIFETIME = 5.0  # seconds to cache a failure, for the other handlers of the same event
MAX_FAILURES = 3  # consecutive failures before the lookup is paused
PAUSE = 30.0  # seconds from the last of these failures
LOCAL_LIFETIME = 2.0  # seconds that a process caches a name before it asks Redis again
POLL = 0.02  # seconds between checks for the result of another process
LOG_EVERY = 60.0  # seconds
THREADS = 4  # for each lookup
MAX_DIGITS = 20  # of a number; E.164 allows 15

Side = Literal["caller", "called"]
T = TypeVar("T", CallEvent, Call)


class CallerNames:
    """Adds names to events. Its methods never raise: without a name, the event is unchanged.

    Args:
        region: default region of the numbers.
        pbxs: the PBXs' settings, for names that are not UTF-8.
        unknown_lifetime: seconds to cache that a number is unknown.
        pause: seconds for which a failing lookup is not asked.
    """

    def __init__(
        self,
        lookups: Sequence[PluggedLookup],
        redis: Redis,
        http: Http,
        region: str | None,
        *,
        pbxs: Mapping[str, PbxSettings] | None = None,
        unknown_lifetime: float = UNKNOWN_LIFETIME,
        pause: float = PAUSE,
    ) -> None:
        self._lookups = [
            _CachedLookup(lookup, redis, http, unknown_lifetime, pause) for lookup in lookups
        ]
        self._region = region
        self._pbxs = pbxs or {}

    async def named(self, event: CallEvent) -> CallEvent:
        """Return the event with the name of the external party if a lookup knows it.

        The PBX's own name is decoded as today's settings say, which may have been corrected.
        """
        event = corrected(event, self._pbxs)
        call = event.summary
        subject = call or event
        side = _external(subject.direction, subject.caller, subject.called)
        name = side and await self._name_of(getattr(subject, side), event)
        if not (side and name):
            return event
        return replace(_with_name(event, side, name), summary=call and _with_name(call, side, name))

    async def named_call(self, call: Call, event: CallEvent) -> Call:
        """Return the call with the name of the external party; `event` already has its name."""
        side = _external(call.direction, call.caller, call.called)
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
        if number.is_nobodys or len(number.digits) > MAX_DIGITS:
            return None
        for lookup in self._lookups:
            name = await lookup.name_of(number, event)
            if name:
                return name
        return None

    def close(self) -> None:
        """End the idle threads. A thread that hangs cannot be stopped."""
        for lookup in self._lookups:
            lookup.threads.shutdown(wait=False)


@asynccontextmanager
async def naming(
    settings: Settings, redis: Redis, pool: str = ""
) -> AsyncIterator[Callable[[str], CallerNames | None]]:
    """Open the configured lookups; yield what returns those of a tenant, or None without any.

    A lookup that was misconfigured since the workers started is logged and left out. A lookup that
    is a tenant's own code is asked in the tenant's own processes alone.

    Args:
        pool: which these processes serve.
    """
    by_tenant: dict[str, CallerNames] = {}
    async with Http() as http:
        for tenant in ("", *settings.tenants):
            its = settings.of(tenant)
            lookups = _plugged(its, pool)
            if lookups or any(pbx.encoding is not None for pbx in its.pbx.values()):
                by_tenant[tenant] = CallerNames(lookups, redis, http, its.region, pbxs=its.pbx)
        try:
            yield by_tenant.get
        finally:
            for names in by_tenant.values():
                names.close()


def _plugged(settings: Settings, pool: str) -> list[PluggedLookup]:
    lookups = []
    apart = settings.tenant not in ("", tenant_of_plugin(pool))
    for name, table in settings.lookups.items():
        if version.is_broken(f"lookups.{name}") or (apart and is_own_code(table.use)):
            continue
        try:
            lookups.append(plug_lookup(name, table))
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything while it is imported
            problems = error.problems if isinstance(error, ConfigError) else [sentence(error)]
            log.error("lookup %s is left out: %s", name, "; ".join(problems))
    return lookups


def _external(direction: Direction | None, caller: Party, called: Party) -> Side | None:
    """Return which side is outside the PBX, if any, by the rules that calls are folded with."""
    if direction == "in" and (caller.extension is None or called.did is not None):
        return "caller"
    if direction == "out" and called.extension is None and "*" not in (called.number or ""):
        return "called"
    return None


def _with_name(subject: T, side: Side, name: str) -> T:
    return replace(subject, **{side: replace(getattr(subject, side), name=name)})


class _CachedLookup:
    """One lookup, with its cache in Redis and its pause after failures."""

    def __init__(
        self,
        lookup: PluggedLookup,
        redis: Redis,
        http: Http,
        unknown_lifetime: float,
        pause: float,
    ) -> None:
        self.threads = ThreadPoolExecutor(THREADS, "lookup")
        self._lookup = lookup
        self._redis = redis
        self._http = http
        self._unknown_lifetime = unknown_lifetime
        self._pause = pause
        self._memory = RedisMemory(redis, f"lookups.{lookup.name}")
        self._failures_key = keys.lookup_failures(lookup.name)
        self._recent = TtlCache[str, str](min(LOCAL_LIFETIME, lookup.lifetime))
        self._failures = 0  # in a row; only for a lookup without a cache
        self._paused_until = 0.0
        self._log_at = 0.0

    async def name_of(self, number: Number, event: CallEvent) -> str:
        """Return the name, or "" if the lookup knows none, fails, or is paused."""
        key = number.e164 or number.digits
        known = self._recent.get(key)
        if known is not None:
            return known
        if not self._lookup.lifetime:
            return await self._uncached(number, event)
        try:
            known = await self._cached(key, number, event)
        except RedisError as error:
            self._log_failure(f"Redis does not answer: {error}", event)
            return ""
        self._recent.keep(key, known)
        return known

    async def _cached(self, key: str, number: Number, event: CallEvent) -> str:
        """Return the name from Redis. If it has none, one process asks and the others wait."""
        known = await self._known_or_claimed(key)
        if known is not None:
            return known
        name = await self._ask(number, event)
        await self._store(key, name)
        return name or ""

    async def _known_or_claimed(self, key: str) -> str | None:
        """Return the name, "" if this process must not ask, or None if it must."""
        asking = keys.lookup_asking(self._lookup.name, key)
        patience = self._lookup.policy.timeout
        until = time.monotonic() + patience
        known = await self._known(key)
        while known is None and time.monotonic() < until:
            # The claim of a killed process expires once its request would have timed out.
            expiry = int(1000 * patience) + 500
            if await self._redis.set(asking, "", nx=True, px=expiry):
                known = await self._known(key)  # another process may have stored it just now
                if known is None:
                    return None
                await self._redis.delete(asking)
            else:
                await asyncio.sleep(POLL)
                known = await self._known(key)
        return known or ""

    async def _known(self, key: str) -> str | None:
        """Return the name from Redis, "" while the lookup is paused, or None."""
        name_key = keys.lookup_name(self._lookup.name, key)
        found: Any = await self._redis.mget(name_key, self._failures_key)
        if found[0] is not None:
            return str(found[0], "utf-8")
        return "" if int(found[1] or 0) >= MAX_FAILURES else None

    async def _store(self, key: str, name: str | None) -> None:
        """Store the outcome for all processes and release the claim."""
        seconds = self._lookup.lifetime
        if not name:
            seconds = min(seconds, FAILURE_LIFETIME if name is None else self._unknown_lifetime)
        name_key = keys.lookup_name(self._lookup.name, key)
        if name is None:
            async with self._redis.pipeline(transaction=True) as together:
                together.incr(self._failures_key)
                together.pexpire(self._failures_key, int(1000 * self._pause))
                await together.execute()
        # No transaction: in a cluster, these may be on different servers.
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.set(name_key, name or "", px=max(1, int(1000 * seconds)))
            pipeline.delete(keys.lookup_asking(self._lookup.name, key))
            if name is not None:
                pipeline.delete(self._failures_key)
            await pipeline.execute()

    async def _uncached(self, number: Number, event: CallEvent) -> str:
        if time.monotonic() < self._paused_until:
            return ""
        name = await self._ask(number, event)
        self._failures = self._failures + 1 if name is None else 0
        if self._failures == MAX_FAILURES:
            self._failures, self._paused_until = 0, time.monotonic() + self._pause
        return name or ""

    async def _ask(self, number: Number, event: CallEvent) -> str | None:
        """Ask the lookup. Return the name, "" if it knows none, or None if it failed."""
        try:
            name = await self._lookup.ask(
                number, event, http=self._http, threads=self.threads, memory=self._memory
            )
        except Exception as error:  # noqa: BLE001 - a lookup may raise anything
            self._log_failure(_redacted(number, sentence(error)), event)
            return None
        return name or ""

    def _log_failure(self, why: str, event: CallEvent) -> None:
        """Log the failure, at most once every `LOG_EVERY` seconds."""
        if time.monotonic() < self._log_at:
            return
        self._log_at = time.monotonic() + LOG_EVERY
        log.warning(
            "lookup %s failed, events continue without its names: %s",
            self._lookup.name,
            why,
            extra={
                "tenant": event.tenant,
                "event": event.id,
                "call": event.call,
                "extension": event.extension,
            },
        )


def _redacted(number: Number, text: str) -> str:
    """Remove the number from an error message: phone numbers do not belong in logs."""
    for form in sorted({*number.forms, number.text}, key=len, reverse=True):
        text = text.replace(form, "…")
    return text
