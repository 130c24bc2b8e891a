"""What needs attention, as `offhook status` and `doctor` say it; looked up once for all."""

import asyncio
import time
from datetime import UTC, datetime

from redis import Redis

from offhook.inbox import Inbox
from offhook.operations.last_diagnosis import last_diagnosis
from offhook.operations.status import status
from offhook.settings import Settings

_KEEP = 10.0  # seconds: it takes many commands


class Attention:
    """The sentences of `offhook status`, and those that only the last `offhook doctor` has."""

    def __init__(self) -> None:
        self._known: list[str] = []
        self._until = 0.0
        self._looking = asyncio.Lock()

    async def get(self, inbox: Inbox, rq: Redis, settings: Settings) -> list[str]:
        """The sentences, some seconds old at most."""
        async with self._looking:
            if time.monotonic() >= self._until:
                self._known = (await status(inbox, rq, settings)).problems
                found = await last_diagnosis(inbox.redis)
                if found is not None:
                    self._known += found.sentences(datetime.now(UTC), but=self._known)
                self._until = time.monotonic() + _KEEP
            return self._known
