"""`TokenFile`: an access token that all worker processes of a machine use, where few may be had.

Every burst of events has a process of its own, so what a process remembers is soon forgotten.
"""

import asyncio
import fcntl
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO

from offhook import TemporaryError
from workers.handlers.crm.base import Access

_POLL = 0.05  # seconds between two looks at a lock that another process holds


class TokenFile:
    """One file in a folder, which nobody but the workers' user may read.

    Args:
        folder: where; it is made if it is not there.
        whose: names the credentials that the token was had for; only its hash is written.
        clock: seconds since 1970.
    """

    def __init__(self, folder: str, whose: str, clock: Callable[[], float] = time.time) -> None:
        self._path = Path(folder) / f"{sha256(whose.encode()).hexdigest()[:32]}.json"
        self._clock = clock

    async def access(
        self, seconds: float, refused: Access | None, new: Callable[[], Awaitable[Access]]
    ) -> Access:
        """What is kept, or else a new one, which one process asks for while all others wait.

        Args:
            seconds: for which it must be good.
            refused: what the CRM does not take any more.
            new: asks for a new one.

        Raises:
            TemporaryError: the file cannot be written.
        """
        async with self.held() as file:
            access = file.read(seconds)
            if access is None or (refused is not None and access.headers == refused.headers):
                access = await new()
                file.keep(access)
            return access

    @asynccontextmanager
    async def held(self) -> AsyncIterator["HeldTokenFile"]:
        """The file, with all other processes waiting for it.

        Raises:
            TemporaryError: the file cannot be written.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise TemporaryError(
                f"the access token cannot be kept in {self._path.parent} ({error.strerror}): let "
                "the workers' user write there, or name another folder in the handler's options"
            ) from error
        with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
            while not _locked(file):
                await asyncio.sleep(_POLL)
            yield HeldTokenFile(file, self._clock)


class HeldTokenFile:
    """A token file that no other process reads or writes."""

    def __init__(self, file: IO[str], clock: Callable[[], float]) -> None:
        self._file = file
        self._clock = clock

    def read(self, seconds: float) -> Access | None:
        """What is kept, if it is good for more than these seconds."""
        try:
            kept = json.load(self._file)
            left = kept["until"] - self._clock()
            return Access(kept["url"], kept["headers"], left) if left > seconds else None
        except (ValueError, LookupError, TypeError):
            return None  # new, or cut short when a process was killed

    def keep(self, access: Access) -> None:
        """Keep it for all processes."""
        kept = {
            "url": access.url,
            "headers": dict(access.headers),
            "until": self._clock() + (access.seconds or 0),
        }
        self._file.seek(0)
        self._file.truncate()
        json.dump(kept, self._file)
        self._file.flush()


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
