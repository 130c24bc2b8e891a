"""`File`: append events to a file, and start a new one when it is full or the day is over."""

import csv
import fcntl
import gzip
import mmap
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import FileIO, StringIO
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import AfterValidator, Field

from offhook import CallEvent, Context, EventType, Handler, Number, TemporaryError

LOOK_BACK = 1_000_000  # bytes at the end of a file that are searched for a repeated event

_SUMMARY = (
    *("outcome", "started", "answered", "ended"),
    *("ring_seconds", "talk_seconds", "answered_by", "recording"),
)
_PATHS = (  # of the columns of CSV, within the event
    *("id", "pbx", "call_id", "extension", "type", "direction", "status"),
    *("caller.number", "caller.name", "caller.extension"),
    *("called.number", "called.extension", "called.did"),
    "received",
    *(f"summary.{name}" for name in _SUMMARY),
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
# Callers choose their names, and a spreadsheet must not run one as a formula. Phone numbers stay.
_FORMULA = re.compile(r"[=@]|[+-](?![\d ().-]*$)")


def _check_path(value: Path) -> Path:
    if not value.parent.is_dir():
        raise ValueError(f"there is no folder {value.parent}: create it, for the workers' user")
    if value.is_dir():
        raise ValueError(f"{value} is a folder: name a file in it")
    return value


@dataclass(frozen=True)
class File(Handler):
    """Append every event to a file, as a line of JSON or a row of CSV."""

    path: Annotated[
        Path, AfterValidator(_check_path), Field(description="the file; its folder must exist")
    ]
    format: Annotated[
        Literal["jsonl", "csv"],
        Field(description="jsonl: the whole event as JSON; csv: the columns for a spreadsheet"),
    ] = "jsonl"
    daily: Annotated[bool, Field(description="start a new file every day (UTC)")] = True
    megabytes: Annotated[float, Field(gt=0, le=1000, description="maximum size of a file")] = 100.0
    compress: Annotated[bool, Field(description="compress finished files with gzip")] = True
    keep: Annotated[
        int | None, Field(ge=1, description="number of finished files to keep; all if not set")
    ] = None

    events: ClassVar[Sequence[EventType]] = (EventType.CALL_ENDED, EventType.CALL_CORRECTED)

    def handle(self, event: CallEvent, context: Context) -> None:
        if self.format == "csv":
            line = _row(_cell(event, path) for path in _PATHS)
        else:
            line = msgspec.json.encode(event) + b"\n"
        try:
            full = self._append(event.id, line, context)
        except OSError as error:
            raise TemporaryError(
                f"{self.path} did not take the event: {error.strerror or error}"
            ) from error
        if full:
            self._tidy(context)

    def erase(self, number: Number) -> int:
        """Delete the lines that have the number, in finished files too. Returns how many.

        Raises:
            OSError: a file cannot be read or written.
        """
        with self._locked(), FileIO(self._beside("tidy"), "ab", opener=_private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            torn = self.path.with_name(f"{self.path.name}.torn")
            files = [path for path in (*self._kept(), self.path, torn) if path.exists()]
            return sum(_erase(path, number) for path in files)

    def _append(self, id: str, line: bytes, context: Context) -> bool:  # noqa: A002
        """Append a line, unless the file has it. Return whether that started a new file.

        Raises:
            OSError: the line is not written, or might not survive a power cut.
        """
        with self._locked():
            with self._opened() as file:
                self._mend(file, context)
                if _has(file, id, everywhere=context.attempt > 1):
                    os.fsync(file.fileno())
                    return False
                full = self._is_over(file, len(line))
            if full:
                mode = self._put_away()
            with self._opened() as file:
                if full:  # readable for those who could read the last one
                    os.fchmod(file.fileno(), mode)
                new = _size(file) == 0
                _write(file, (self._header + line) if new else line)
                os.fsync(file.fileno())
            if new:
                _sync(self.path.parent)
        return full

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Allow one writer at a time, of all threads and processes."""
        with FileIO(self._beside("lock"), "ab", opener=_private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _opened(self) -> FileIO:
        return FileIO(self.path, "a+b", opener=_private)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{suffix}")

    @property
    def _header(self) -> bytes:
        if self.format != "csv":
            return b""
        return _row(path.removeprefix("summary.").replace(".", "_") for path in _PATHS)

    def _mend(self, file: FileIO, context: Context) -> None:
        """Move an incomplete last line out of the file: its writer died, and its event returns."""
        size = _size(file)
        if size == 0 or os.pread(file.fileno(), 1, size - 1) == b"\n":
            return
        file.seek(max(0, size - LOOK_BACK))
        torn = file.readall().rpartition(b"\n")[2]
        # Kept, because an editor may have written it.
        aside = self.path.with_name(f"{self.path.name}.torn")
        with FileIO(aside, "ab", opener=_private) as rest:
            rest.write(torn + b"\n")
            os.fsync(rest.fileno())
        file.truncate(size - len(torn))
        context.log.warning("the last line of %s was incomplete: moved to %s", self.path, aside)

    def _is_over(self, file: FileIO, more: int) -> bool:
        """Return whether `more` bytes belong in a new file."""
        status = os.fstat(file.fileno())
        if status.st_size == 0:
            return False
        if status.st_size + more > self.megabytes * 1_000_000:
            return True
        if self.daily and _moment(status.st_mtime).date() != datetime.now(UTC).date():
            return True
        file.seek(0)
        return file.read(len(self._header)) != self._header

    # Finished files

    def _put_away(self) -> int:
        """Rename the file to the time of its last line, so that names sort by time.

        Returns:
            Its mode.
        """
        status = self.path.stat()
        moment = _moment(status.st_mtime)
        while (kept := self._kept_as(moment)).exists() or _compressed(kept).exists():
            moment += timedelta(microseconds=1)
        self.path.rename(kept)
        _sync(self.path.parent)
        return stat.S_IMODE(status.st_mode)

    def _kept_as(self, moment: datetime) -> Path:
        return self.path.with_stem(f"{self.path.stem}-{moment:%Y%m%d-%H%M%S-%f}")

    def _tidy(self, context: Context) -> None:
        """Compress and delete finished files. The next finished file retries what fails."""
        try:
            with FileIO(self._beside("tidy"), "ab", opener=_private) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                kept = self._kept()
                for path in kept[: -self.keep] if self.keep else []:
                    path.unlink()
                for path in kept[-self.keep if self.keep else 0 :] if self.compress else []:
                    if path.suffix != ".gz":
                        _compress(path)
        except BlockingIOError:  # another process is doing it
            return
        except OSError as error:
            context.log.error("cannot compress or delete old files of %s: %s", self.path, error)

    def _kept(self) -> list[Path]:
        """The finished files, oldest first."""
        name = re.compile(
            rf"{re.escape(self.path.stem)}-\d{{8}}-\d{{6}}-\d{{6}}{re.escape(self.path.suffix)}"
            r"(\.gz)?"
        )
        return sorted(path for path in self.path.parent.iterdir() if name.fullmatch(path.name))


def _private(path: str, flags: int) -> int:
    """Open a file. A new one is for its owner only: it has names and numbers."""
    return os.open(path, flags, 0o600)


def _size(file: FileIO) -> int:
    return file.seek(0, os.SEEK_END)


def _has(file: FileIO, id: str, *, everywhere: bool) -> bool:  # noqa: A002
    """Return whether the file has a line with this id.

    A first attempt looks near the end only: it repeats a line only right after a crash.
    """
    size = _size(file)
    if size == 0:
        return False
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(id.encode(), 0 if everywhere else max(0, size - LOOK_BACK)) >= 0


def _write(file: FileIO, data: bytes) -> None:
    """Write all of the data or, when the disk is full, none of it."""
    size = _size(file)
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError:
        with suppress(OSError):  # otherwise the next writer repairs it
            file.truncate(size)
        raise


def _sync(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _compressed(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")


def _compress(path: Path) -> None:
    part = path.with_name(f".{path.name}.gz.part")
    try:
        with path.open("rb") as source, open(part, "wb", opener=_private) as target:
            shutil.copymode(path, part)
            with gzip.open(target, "wb") as compressing:
                shutil.copyfileobj(source, compressing, LOOK_BACK)
            target.flush()
            os.fsync(target.fileno())
        part.rename(_compressed(path))
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)
    path.unlink()


def _erase(path: Path, number: Number) -> int:
    """Delete the lines of a file that have the number."""
    opened = gzip.open if path.suffix == ".gz" else open
    part = path.with_name(f".{path.name}.part")
    erased = 0
    try:
        with opened(path, "rb") as source, open(part, "wb", opener=_private) as target:
            packed = path.suffix == ".gz"
            with gzip.open(target, "wb") if packed else nullcontext(target) as lines:
                for line in source:
                    if number.is_in(line.decode("utf-8", "replace")):
                        erased += 1
                    else:
                        lines.write(line)
            target.flush()
            os.fsync(target.fileno())
        if erased:
            shutil.copystat(path, part)  # the time of its last line, too
            part.rename(path)
            _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)
    return erased


def _moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)


def _row(cells: Iterable[str]) -> bytes:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _cell(event: CallEvent, path: str) -> str:
    """A value in the form that spreadsheets read: one line, times in UTC without a zone."""
    value: Any = event
    for name in path.split("."):
        value = getattr(value, name, None)  # a raw event has no summary
    match value:
        case None:
            return ""
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    text = _CONTROL.sub(" ", str(value))
    return f"'{text}" if _FORMULA.match(text) else text
