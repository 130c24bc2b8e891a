"""`Watch`: what the receiver looks at once a second, besides callbacks."""

import asyncio
import logging
from contextlib import suppress

from redis.exceptions import RedisError

from offhook.inbox import Inbox, refused
from offhook.inbox.refused import CallbackOutcome
from offhook.redis_servers import servers
from offhook.settings import Settings
from receiver.connections import Connections
from receiver.event_store import EventStore
from receiver.refusals import Refusals
from receiver.request import Callbacks

log = logging.getLogger("offhook.receiver")

_EVERY = 1.0  # seconds
_AGAIN = 0.25  # seconds until the next look once memory was short: it may be so for a moment only
_HALVE_EVERY = 3600  # rounds: an extension's share is what it took in the last hours
_SCARCE_INBOX = 0.7  # of `maxmemory`; at 0.9 the inbox refuses all events
_SCARCE_JOURNAL = 0.25  # of `journal_size`
# Less work than to parse all of INFO here.
_MEMORY = """
local info = redis.call('INFO', 'memory')
return {tonumber(info:match('used_memory:(%d+)')), tonumber(info:match('maxmemory:(%d+)'))}
"""


class Watch:
    """Measures the room that is left, logs and stores refusals, and looks for revoked URLs."""

    def __init__(
        self,
        settings: Settings,
        inbox: Inbox,
        store: EventStore,
        callbacks: Callbacks,
        refusals: Refusals,
        connections: Connections,
    ) -> None:
        self._settings = settings
        self._redis = inbox.redis
        self._store = store
        self._callbacks = callbacks
        self._refusals = refusals
        self._connections = connections
        self._rounds = 0
        self._scarce = 0  # number of looks in a row that found memory short
        self._journaled = 0  # events in the journal that are counted
        self._storing: asyncio.Future[None] | None = None

    def take(self, settings: Settings) -> None:
        """Use other settings."""
        self._settings = settings

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self._look()
            except Exception:  # the receiver must go on without it
                log.exception("unexpected error in the receiver's watch")
            await asyncio.sleep(_AGAIN if self._scarce == 1 else _EVERY)

    async def _look(self) -> None:
        self._rounds += 1
        self._refusals.log_the_rest()
        self._connections.forget_sources()
        shares = self._callbacks.shares
        if self._rounds % _HALVE_EVERY == 0:
            shares.halve()
        size = self._settings.journal_size
        journal = _share(self._store.journal_size, size, _SCARCE_JOURNAL)
        inbox = await self._inbox_share()
        self._scarce = 0 if inbox is None else self._scarce + 1
        stays = inbox if self._scarce > 1 else None
        shares.size = min(filter(None, (journal, stays)), default=None)
        await self._callbacks.look_at_revoked()

    async def store_counts(self) -> None:
        """Add what was counted to the counts in Redis, if it answers.

        It goes on if its caller is cancelled: what is in Redis, but not known to be, would be added
        again when the receiver ends.
        """
        if self._storing is not None:
            await asyncio.wait([self._storing])
        self._storing = asyncio.ensure_future(self._store_counts())
        await asyncio.shield(self._storing)

    async def _store_counts(self) -> None:
        if new := self._store.journaled - self._journaled:
            self._refusals.note(CallbackOutcome.JOURNALED, new)
            self._journaled += new
        with suppress(RedisError, OSError):  # the event store reports it
            async with asyncio.timeout(self._settings.patience):
                for tenant, counts in self._refusals.unstored().items():
                    await refused.add(self._redis, counts, tenant)
                    self._refusals.stored(tenant, counts)

    async def _inbox_share(self) -> float | None:
        if not self._store.takes_directly:
            return None
        await self.store_counts()
        try:
            async with asyncio.timeout(self._settings.patience):
                found = [await each.eval(_MEMORY, 0) for each in await servers(self._redis)]
        except (RedisError, OSError):
            return None  # the event store reports it
        shares = [_share(used, most, _SCARCE_INBOX) for used, most in found]
        return min(filter(None, shares), default=None)


def _share(used: int, size: int, scarce: float) -> float | None:
    """Return the bytes of a store that is getting full; None while it has room."""
    return size if used >= size * scarce > 0 else None
