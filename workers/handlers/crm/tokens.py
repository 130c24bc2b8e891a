"""`TokenFile`: an access token shared by the worker processes of a machine, in a file.

For CRMs that give few tokens: every burst of events has its own process, without a token at first.
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
from workers.handlers.crm.crm_api import Access

_POLL = 0.05  # seconds between two attempts to lock the file


class TokenFile:
    """One file in a folder, readable only by the workers' user.

    Args:
        folder: created if missing.
        whose: names the credentials of the token; the file's name has only its hash.
        clock: seconds since 1970.
    """

    def __init__(self, folder: Path, whose: str, clock: Callable[[], float] = time.time) -> None:
        self._path = folder / f"{sha256(whose.encode()).hexdigest()[:32]}.json"
        self._clock = clock

    async def access(
        self, seconds: float, refused: Access | None, new: Callable[[], Awaitable[Access]]
    ) -> Access:
        """Return the saved access, or a new one that one process gets while the others wait.

        Args:
            seconds: how long a saved access must still be valid.
            refused: an access that the CRM no longer accepts.
            new: gets a new access.

        Raises:
            TemporaryError: the file cannot be written.
        """
        async with self._locked() as file:
            access = self._read(file, seconds)
            if access is None or (refused is not None and access.headers == refused.headers):
                access = await new()
                self._write(file, access)
            return access

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[IO[str]]:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise TemporaryError(
                f"the access token cannot be saved in {self._path.parent} ({error.strerror}): let "
                "the workers' user write there, or name another folder in the handler's options"
            ) from error
        with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
            while not _lock(file):
                await asyncio.sleep(_POLL)
            yield file

    def _read(self, file: IO[str], seconds: float) -> Access | None:
        try:
            saved = json.load(file)
            left = saved["until"] - self._clock()
            return Access(saved["url"], saved["headers"], left) if left > seconds else None
        except (ValueError, LookupError, TypeError):
            return None  # new, or incomplete because a process was killed

    def _write(self, file: IO[str], access: Access) -> None:
        until = self._clock() + (access.seconds or 0)
        file.seek(0)
        file.truncate()
        json.dump({"url": access.url, "headers": dict(access.headers), "until": until}, file)
        file.flush()


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
