"""`RunLease`: the right of one process at a time to do a piece of work."""

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from offhook.inbox.leases import new_token
from offhook.inbox.scripts import script


class RunLease:
    """The right to do a piece of work alone. It expires unless it is renewed.

    Args:
        key: of the lease.
        seconds: until another process may do the work, unless it is renewed.
    """

    def __init__(self, redis: Redis, key: str, seconds: int) -> None:
        self._key = key
        self._ms = seconds * 1000
        self._token = new_token()
        self._take: AsyncScript = redis.register_script(script("take"))
        self._renew: AsyncScript = redis.register_script(script("renew"))
        self._release: AsyncScript = redis.register_script(script("release"))

    async def take(self) -> bool:
        """Take the lease. Return False if another process has it."""
        left: int = await self._take(keys=[self._key], args=[self._token, self._ms, ""])
        return left == 0

    async def renew(self) -> bool:
        """Renew the lease. Return False if it is no longer ours: the work must stop."""
        return bool(await self._renew(keys=[self._key], args=[self._token, self._ms]))

    async def release(self) -> None:
        """Give the lease back, if it is still ours."""
        await self._release(keys=[self._key], args=[self._token])
