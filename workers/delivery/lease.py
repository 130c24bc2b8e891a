"""The lease: one process at a time serves a cursor, and a dead one loses it."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from redis.exceptions import RedisError

from offhook.connection import connect
from offhook.errors import LeaseLost
from offhook.inbox import LEASE_MS, Cursor, Inbox

log = logging.getLogger("offhook.dispatch")

_RENEW_EVERY = 1.5  # seconds
_SURE_FOR = LEASE_MS / 1000 * 0.8  # shorter than on the server, for clock drift


async def taken(cursor: Cursor) -> bool:
    """Take the lease, if need be after a dead process's lease expires. Return whether it worked."""
    give_up = time.monotonic() + 2 * LEASE_MS / 1000
    while (left := await cursor.take()) > 0:
        if time.monotonic() > give_up:
            return False
        await asyncio.sleep(min(left, 0.25))
    return True


class LeaseKeeper:
    """Renews a cursor's lease in a thread, so that a handler blocking the event loop keeps it.

    Args:
        redis_url: the server; the thread has its own connection.
        cursor: whose lease was just taken.
        lost: called in that thread when another process has the lease.
    """

    def __init__(self, redis_url: str, cursor: Cursor, lost: Callable[[], object]) -> None:
        self._redis_url = redis_url
        self._cursor = cursor
        self._lost = lost
        self._sure_until = time.monotonic() + _SURE_FOR
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `LeaseLost` unless this process certainly holds the lease."""
        if time.monotonic() > self._sure_until:
            raise LeaseLost(
                f"cannot renew the lease of {self._cursor.handler}/{self._cursor.partition}"
            )

    def stop(self) -> None:
        """End the thread. The lease expires unless the cursor releases it."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        asyncio.run(self._keep())

    async def _keep(self) -> None:
        redis = connect(self._redis_url, tries=0)
        cursor = Cursor(
            Inbox(redis, partitions=1),
            self._cursor.handler,
            self._cursor.partition,
            token=self._cursor.token,
        )
        try:
            while not self._stop.is_set():
                asked = time.monotonic()
                try:
                    if not await cursor.renew():
                        self._sure_until = 0.0
                        self._lost()
                        return
                    self._sure_until = asked + _SURE_FOR
                except RedisError as error:
                    log.warning("cannot renew a lease, will retry: %s", error)
                await asyncio.to_thread(self._stop.wait, _RENEW_EVERY)
        finally:
            await redis.aclose()
