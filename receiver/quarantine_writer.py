"""`QuarantineWriter`: keeps refused callbacks, those that come together in one step."""

import asyncio
import logging
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from offhook.inbox import quarantine

log = logging.getLogger("offhook.receiver")

Refused = dict[str, str | bytes]


class QuarantineWriter:
    """Writes one batch at a time, so that a flood needs one connection to Redis.

    Args:
        size: of each quarantine: of more than this many, the oldest are not written at all.
        patience: seconds for a batch.
    """

    def __init__(self, redis: Redis, size: int, patience: float) -> None:
        self._redis = redis
        self._size = size
        self._patience = patience
        self._waiting: list[tuple[str, Refused, Callable[[], None]]] = []
        self._writing: asyncio.Task[None] | None = None

    def take(self, size: int, patience: float) -> None:
        """Use other settings."""
        self._size, self._patience = size, patience

    def keep(self, refused: Refused, then: Callable[[], None], tenant: str = "") -> None:
        """Put a tenant's refused callback into quarantine, then call `then`, also if that fails."""
        self._waiting.append((tenant, refused, then))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Return when everything is written."""
        if self._writing is not None:
            await asyncio.wait((self._writing,))

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            by_tenant: dict[str, list[Refused]] = {}
            for tenant, refused, _ in batch:
                by_tenant.setdefault(tenant, []).append(refused)
            try:
                async with asyncio.timeout(self._patience):
                    for tenant, its in by_tenant.items():
                        newest = its[-self._size :]
                        await quarantine.keep(self._redis, newest, self._size, tenant)
            except (RedisError, TimeoutError) as error:
                reason = str(error) or "Redis does not respond"
                log.error("cannot quarantine a refused callback: %s", reason)
            for *_, then in batch:
                then()
