"""The journal: batches of events, fsynced to disk while Redis does not accept them.

Each line is a batch: its checksum and its JSON. A line that a crash left incomplete was never
answered 200. A batch keeps the number of its first attempt, so Redis appends it only once.
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
_UNLOCKED = ".new"  # suffix until it is locked, so that no other receiver takes it over
_READ_AT_ONCE = 1 << 19  # bytes: several seconds of callbacks, sent in well under one second
_PROBE = b"\0" * 4096

_T = TypeVar("_T")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Batch).decode


def bytes_in(folder: Path) -> int:
    """Return the size of all journals in a folder, those of other processes among them."""
    total = 0
    for path in folder.glob(f"*{_SUFFIX}"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


class Journal:
    """One file of batches, locked by one process: drained from the front, truncated when empty.

    Args:
        path: the file.
        limit: maximum bytes.
        patience: seconds before a write to a disk that does not respond is reported as a fault. It
            keeps waiting after that.

    Raises:
        BlockingIOError: another process has locked it.
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
        self.size = os.fstat(self._file).st_size  # bytes beyond it are ignored
        self.fault: str | None = None  # why the last append failed, or what it waits for
        self._drained = 0
        self._refused = 0  # bytes of the last batch that was not written
        # A single thread accesses the file, so operations do not overlap and are finished before
        # the file is closed, even those whose caller was cancelled.
        self._thread = ThreadPoolExecutor(1, "journal")

    async def append(self, batch: Batch) -> None:
        """Return when the batch is on disk. Not for concurrent use.

        Raises:
            InboxUnavailable: the disk failed or the journal is full.
        """
        line = _line(batch)
        try:
            await self._in_thread(lambda: self._append(line))
        except OSError as error:
            self.fault, self._refused = _fault(error), len(line)
            raise InboxUnavailable(self.fault) from error
        self.fault = None

    async def drain(self, send: Callable[[Batch], Awaitable[None]]) -> bool:
        """Send the next batches in order. Return whether the journal is now empty.

        Args:
            send: raises when it fails; the next drain resumes with that batch.
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
        """Clear the fault if the disk works again and has room for the batch that it refused."""
        try:
            await self._in_thread(self._try)
        except OSError as error:
            self.fault = _fault(error)
        else:
            self.fault = None

    def close(self) -> None:
        """Close the file, and delete it if it is empty."""
        self._thread.shutdown()
        if not self.size:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        working = asyncio.get_running_loop().run_in_executor(self._thread, work)
        done, _ = await asyncio.wait([working], timeout=self._patience)
        if not done:
            # Keep waiting: the write may still succeed, and a failure now could not be undone.
            hangs = f"the journal's disk has not responded for {self._patience:g} s"
            if self.fault != hangs:  # else another one waits behind the first
                self.fault = hangs
                log.error("%s: callbacks wait for it, and their clients may give up", hangs)
            await asyncio.wait([working])
            if self.fault == hangs:
                self.fault = None
                log.warning("the journal's disk responds again")
        return await working

    def _append(self, line: bytes) -> None:
        self._write(line)
        self.size += len(line)

    def _write(self, data: bytes) -> None:
        """Append the data and sync it to disk, or raise and leave the journal unchanged."""
        if self.size + len(data) > self._limit:
            raise _Full(self._limit)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._file, data[written:], self.size + written)
            os.fdatasync(self._file)
        except OSError:
            with suppress(OSError):  # the next write overwrites it anyway
                os.ftruncate(self._file, self.size)
            raise

    def _try(self) -> None:
        if self.size + self._refused > self._limit:
            raise _Full(self._limit)
        self._write(_PROBE)
        os.ftruncate(self._file, self.size)

    def _read(self) -> list[bytes]:
        """Return the next complete lines. Skip an incomplete one at the end, left by a crash."""
        if self._drained == self.size:
            return []
        data = b""
        while b"\n" not in data:
            start = self._drained + len(data)
            more = os.pread(self._file, min(_READ_AT_ONCE, self.size - start), start)
            if not more:
                log.warning("%s ends with an incomplete batch, which was never accepted", self.path)
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
        except OSError as error:  # its events are lost anyway; the others must not wait
            log.error("cannot keep the damaged batch: %s", error)

    def _clear(self) -> bool:
        if self._drained < self.size:
            return False
        os.ftruncate(self._file, 0)
        # Before the sync, which may fail: an append must never leave a gap at the front.
        self.size = self._drained = 0
        os.fsync(self._file)
        self.fault = None
        return True


class _Full(OSError):
    def __init__(self, limit: int) -> None:
        super().__init__(errno.EFBIG, f"the journal has reached its limit of {limit} bytes")


def left_behind(folder: Path, limit: int, patience: float = 2.0) -> list[Journal]:
    """Return the non-empty journals of dead receivers, oldest first.

    Raises:
        OSError: the folder or a journal cannot be read or written.
    """
    journals = []
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        try:
            journal = Journal(path, limit, patience)
        except BlockingIOError:
            continue  # its receiver is running
        if journal.size:
            journals.append(journal)
        else:
            journal.close()
    return journals


def open_journals(folder: Path, limit: int, patience: float = 2.0) -> list[Journal]:
    """Return the journals of dead receivers, oldest first, and a new one as the last.

    Raises:
        ConfigError: the folder is not writable.
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
            "name a folder where events can be kept while Redis is down"
        ) from error
    return [*journals, own]


def _latest_name(folder: Path) -> str:
    """Return a new name that sorts after the existing ones even if the clock was set back."""
    name = new_event_id()
    others = [path.stem for path in folder.glob(f"*{_SUFFIX}") if _NAME.fullmatch(path.stem)]
    latest = max(others, default="")
    return name if name > latest else f"{int(latest[:12], 16) + 1:012x}{name[12:]}"


def _line(batch: Batch) -> bytes:
    data = _encode(batch)
    return b"%08x %s\n" % (zlib.crc32(data), data)


def _parse(line: bytes) -> Batch | None:
    """Return the batch, or None if the line is damaged."""
    checksum, _, data = line.rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(data):
        return None
    try:
        return _decode(data)
    except (ValueError, RecursionError):  # msgspec raises more than its DecodeError
        return None


def _fault(error: OSError) -> str:
    if isinstance(error, _Full):
        return str(error.strerror)
    return f"the journal cannot be written: {error.strerror}"


def _sync(folder: Path) -> None:
    """Sync the names of the folder's files to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
