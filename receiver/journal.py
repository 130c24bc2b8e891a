"""The journal: the disk, when Redis cannot take events. Batches lie here, fsynced, until it can.

A line is a batch: its checksum and its JSON. What a crash left unfinished at the end was never
answered 200. A batch has the number that its first try had, so sending it twice appends it once.
"""

import asyncio
import errno
import fcntl
import logging
import os
import re
import zlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from offhook.errors import ConfigError, InboxUnavailable
from offhook.event import new_event_id
from offhook.inbox import Batch

log = logging.getLogger("offhook.receiver")

_SUFFIX = ".journal"
_NAME = re.compile("[0-9a-f]{32}")
_UNLOCKED = ".new"  # not yet held: nobody may take it for one left behind
_READ_AT_ONCE = 1 << 19  # bytes; several seconds' worth of callbacks, sent in well under one
_PROBE = b"\0" * 4096

_T = TypeVar("_T")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Batch).decode


class Journal:
    """One file of batches, held by one process: appended to, drained from the front, then emptied.

    Args:
        path: the file.
        limit: bytes that it may have.
        patience: seconds that the disk has to answer; then it says that it waits, and goes on
            waiting.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, limit: int, patience: float = 2.0) -> None:
        self.path = path
        self._limit = limit
        self._patience = patience
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise
        self.size = os.fstat(self._file).st_size  # what lies behind it counts for nothing
        self.fault: str | None = None  # why the last append failed, or what it waits for
        self._drained = 0
        self._refused = 0  # bytes of the batch that found no room
        # One thread does all that touches the file: nothing of it overlaps, and what is under way
        # is finished before the file is closed, even when nobody waits for it any more.
        self._thread = ThreadPoolExecutor(1, "journal")

    @property
    def is_empty(self) -> bool:
        """Is there nothing that Redis does not have?"""
        return self.size == 0

    async def append(self, batch: Batch) -> None:
        """Return when the batch is on the disk. One at a time.

        Raises:
            InboxUnavailable: it is not: the disk does not take it, or the journal is full.
        """
        line = _line(batch)
        try:
            await self._in_thread(lambda: self._append(line))
        except OSError as error:
            self.fault, self._refused = _fault(error), len(line)
            raise InboxUnavailable(self.fault) from error
        self.fault = None

    async def drain(self, send: Callable[[Batch], Awaitable[None]]) -> bool:
        """Send the next batches, in order. True: those were all, and the journal is empty.

        Args:
            send: raises when the batch was not taken; a later drain goes on with that one.
        """
        for line in await self._in_thread(self._read):
            batch = _parse(line)
            if batch is None:
                await self._in_thread(lambda line=line: self._keep_aside(line))  # type: ignore[misc]
            else:
                await send(batch)
            self._drained += len(line)
        return await self._in_thread(self._clear)

    async def probe(self) -> None:
        """After a fault: see whether the disk takes something again, and there is room for what
        found none."""
        try:
            await self._in_thread(self._try)
        except OSError as error:
            self.fault = _fault(error)
        else:
            self.fault = None

    def close(self) -> None:
        """Let go of the file, and of an empty one for good."""
        self._thread.shutdown()
        if self.is_empty:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        working = asyncio.get_running_loop().run_in_executor(self._thread, work)
        done, _ = await asyncio.wait([working], timeout=self._patience)
        if not done:
            # It may still succeed, and its callers be answered; nobody else can be told so.
            self.fault = f"the journal's disk has not answered for {self._patience:g} s"
            log.error("%s: callbacks wait for it, and their callers may give up", self.fault)
            await asyncio.wait([working])
            self.fault = None
            log.warning("the journal's disk answers again")
        return await working

    def _append(self, line: bytes) -> None:
        self._write(line)
        self.size += len(line)

    def _write(self, data: bytes) -> None:
        """Have the data on the disk, behind all that is there; or fail, and forget it."""
        if self.size + len(data) > self._limit:
            raise _Full(self._limit)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._file, data[written:], self.size + written)
            os.fdatasync(self._file)
        except OSError:
            with suppress(OSError):  # the next write is at the same place, in any case
                os.ftruncate(self._file, self.size)
            raise

    def _try(self) -> None:
        if self.size + self._refused > self._limit:
            raise _Full(self._limit)
        self._write(_PROBE)
        os.ftruncate(self._file, self.size)

    def _read(self) -> list[bytes]:
        """The next whole lines; a part of one at the very end is what a crash left."""
        if self._drained == self.size:
            return []
        data = b""
        while b"\n" not in data:
            start = self._drained + len(data)
            more = os.pread(self._file, min(_READ_AT_ONCE, self.size - start), start)
            if not more:
                log.warning("%s ends with a batch that was never finished nor answered", self.path)
                self._drained = self.size
                return []
            data += more
        *lines, _ = data.split(b"\n")
        return [line + b"\n" for line in lines]

    def _keep_aside(self, line: bytes) -> None:
        path = self.path.with_suffix(".damaged")
        log.error("a batch in %s is damaged; it is kept aside in %s", self.path, path.name)
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as f:
                f.write(line)
        except OSError as error:  # what it held is lost either way; the others must not wait
            log.error("the damaged batch could not be kept: %s", error)

    def _clear(self) -> bool:
        if self._drained < self.size:
            return False
        os.ftruncate(self._file, 0)
        os.fsync(self._file)
        self.size = self._drained = 0
        self.fault = None
        return True


class _Full(OSError):
    def __init__(self, limit: int) -> None:
        super().__init__(errno.EFBIG, f"the journal has reached its limit of {limit} bytes")


def left_behind(folder: Path, limit: int, patience: float = 2.0) -> list[Journal]:
    """The journals of receivers that are gone, the oldest first.

    Raises:
        OSError: the folder or a journal cannot be read or written.
    """
    journals = []
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        try:
            journal = Journal(path, limit, patience)
        except BlockingIOError:
            continue  # a living receiver's
        if journal.is_empty:
            journal.close()
        else:
            journals.append(journal)
    return journals


def open_journals(folder: Path, limit: int, patience: float = 2.0) -> list[Journal]:
    """The journals that dead receivers left behind, the oldest first, and at the end a new one.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _sync(folder.parent)
        journals = left_behind(folder, limit, patience)
        name = _latest_name(folder)
        own = Journal(folder / f"{name}{_UNLOCKED}", limit, patience)
        own.path = own.path.rename(folder / f"{name}{_SUFFIX}")
        _sync(folder)
    except OSError as error:
        raise ConfigError(
            f"journal: {error.filename or folder} cannot be written ({error.strerror}): "
            "name a folder where events can be kept while Redis is away"
        ) from error
    return [*journals, own]


def _latest_name(folder: Path) -> str:
    """A name that sorts behind all that are there, even if the clock was set back since."""
    name = new_event_id()
    others = [path.stem for path in folder.glob(f"*{_SUFFIX}") if _NAME.fullmatch(path.stem)]
    latest = max(others, default="")
    return name if name > latest else f"{int(latest[:12], 16) + 1:012x}{name[12:]}"


def _line(batch: Batch) -> bytes:
    data = _encode(batch)
    return b"%08x %s\n" % (zlib.crc32(data), data)


def _parse(line: bytes) -> Batch | None:
    """The batch, or None for a damaged one."""
    checksum, _, data = line.rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(data):
        return None
    try:
        return _decode(data)
    except msgspec.DecodeError:
        return None


def _fault(error: OSError) -> str:
    if isinstance(error, _Full):
        return str(error.strerror)
    return f"the journal cannot be written: {error.strerror}"


def _sync(folder: Path) -> None:
    """Have the disk keep the names in it, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
