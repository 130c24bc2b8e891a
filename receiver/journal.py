"""The journal: the disk, when Redis cannot take events. Batches lie here, fsynced, until it can.

A line is a batch: its checksum and its JSON. What a crash left unfinished at the end was never
answered 200. A batch has the number that its first try had, so sending it twice appends it once.
"""

import asyncio
import fcntl
import logging
import os
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from offhook.errors import ConfigError, InboxUnavailable
from offhook.event import new_event_id
from offhook.inbox import Batch

log = logging.getLogger("offhook.receiver")

_SUFFIX = ".journal"
_LINES_AT_ONCE = 1 << 20  # bytes read of it at a time

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Batch).decode


class Journal:
    """One file of batches, held by one process: appended to, drained from the front, then emptied.

    Args:
        path: the file.
        limit: bytes that it may have.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self._limit = limit
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise
        self.size = os.fstat(self._file).st_size
        self.fault: str | None = None  # why the last append failed
        self._drained = 0
        self._damaged = False
        self._lock = asyncio.Lock()

    @property
    def is_empty(self) -> bool:
        """Is there nothing that Redis does not have?"""
        return self.size == 0

    async def append(self, batch: Batch) -> None:
        """Return when the batch is on the disk.

        Raises:
            InboxUnavailable: it is not: the disk does not take it, or the journal is full.
        """
        line = _line(batch)
        async with self._lock:
            if self.size + len(line) > self._limit:
                self.fault = f"the journal has reached its limit of {self._limit} bytes"
                raise InboxUnavailable(self.fault)
            try:
                await asyncio.to_thread(self._write, line)
            except OSError as error:
                self.fault = f"the journal cannot be written: {error.strerror}"
                raise InboxUnavailable(self.fault) from error
            self.size += len(line)
            self.fault = None

    async def drain(self, send: Callable[[Batch], Awaitable[None]]) -> None:
        """Send every batch, in order; return when the journal is empty.

        Args:
            send: raises when the batch was not taken; a later drain goes on with that one.
        """
        while True:
            for line in await asyncio.to_thread(self._read):
                batch = self._parse(line)
                if batch is not None:
                    await send(batch)
                self._drained += len(line)
            async with self._lock:  # nothing is appended now
                if self._drained >= self.size:
                    await asyncio.to_thread(self._clear)
                    return

    def close(self) -> None:
        """Let go of the file, and of an empty one for good."""
        if self.is_empty:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _write(self, line: bytes) -> None:
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self.size)
            raise

    def _read(self) -> list[bytes]:
        """The next whole lines; a part of one at the very end is what a crash left."""
        data = os.pread(self._file, _LINES_AT_ONCE, self._drained)
        while b"\n" not in data and self._drained + len(data) < self.size:
            data += os.pread(self._file, _LINES_AT_ONCE, self._drained + len(data))
        *lines, rest = data.split(b"\n")
        if not lines and rest:
            self._drained += len(rest)  # unfinished
        return [line + b"\n" for line in lines]

    def _parse(self, line: bytes) -> Batch | None:
        checksum, _, data = line.rstrip(b"\n").partition(b" ")
        if checksum == b"%08x" % zlib.crc32(data):
            return _decode(data)
        log.error("a batch in %s is damaged; the file will be kept aside", self.path)
        self._damaged = True
        return None

    def _clear(self) -> None:
        if self._damaged:
            kept = self.path.with_suffix(".damaged")
            kept.write_bytes(self.path.read_bytes())
            self._damaged = False
        os.ftruncate(self._file, 0)
        os.fsync(self._file)
        self.size = self._drained = 0


def open_journals(folder: Path, limit: int) -> list[Journal]:
    """The journals that dead receivers left behind, the oldest first, and at the end a new one.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        journals = []
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            try:
                journals.append(Journal(path, limit))
            except BlockingIOError:
                continue  # a living receiver's
        own = Journal(folder / f"{new_event_id()}{_SUFFIX}", limit)
        _sync(folder)
    except OSError as error:
        raise ConfigError(
            f"journal: {folder} cannot be written ({error.strerror}): "
            "name a folder where events can be kept while Redis is away"
        ) from error
    return [*journals, own]


def _line(batch: Batch) -> bytes:
    data = _encode(batch)
    return b"%08x %s\n" % (zlib.crc32(data), data)


def _sync(folder: Path) -> None:
    """Have the disk keep the file's name, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
