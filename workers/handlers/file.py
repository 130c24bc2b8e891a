"""Events in files: JSON lines or CSV, a new file when one is full or the day is over."""

import csv
import fcntl
import gzip
import mmap
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import FileIO, StringIO
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import AfterValidator, Field

from offhook import CallEvent, Context, EventType, Handler, TemporaryError

LOOK_BACK = 1_000_000  # bytes at a file's end in which an event is looked for before it is added

# A column's name, and where in the event it is found.
_COLUMNS = {
    "id": "id",
    "pbx": "pbx",
    "call_id": "call_id",
    "extension": "extension",
    "type": "type",
    "direction": "direction",
    "status": "status",
    "caller_number": "caller.number",
    "caller_name": "caller.name",
    "caller_extension": "caller.extension",
    "called_number": "called.number",
    "called_extension": "called.extension",
    "called_did": "called.did",
    "received": "received",
    "outcome": "summary.outcome",
    "started": "summary.started",
    "answered": "summary.answered",
    "ended": "summary.ended",
    "ring_seconds": "summary.ring_seconds",
    "talk_seconds": "summary.talk_seconds",
    "answered_by": "summary.answered_by",
    "recording": "summary.recording",
}

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
# A caller chooses his name: it must not be a formula to a spreadsheet. A phone number is none.
_FORMULA = re.compile(r"[=@]|[+-](?![\d ().-]*$)")


def _has_a_folder(value: Path) -> Path:
    if not value.parent.is_dir():
        raise ValueError(f"there is no folder {value.parent}: make it, for the workers' user")
    if value.is_dir():
        raise ValueError(f"{value} is a folder: name a file in it")
    return value


@dataclass(frozen=True)
class File(Handler):
    """Append every event to a file, as a line of JSON or a row of CSV."""

    path: Annotated[
        Path, AfterValidator(_has_a_folder), Field(description="the file; its folder must exist")
    ]
    format: Annotated[
        Literal["jsonl", "csv"],
        Field(description="jsonl: all of the event as JSON; csv: what fits a spreadsheet"),
    ] = "jsonl"
    daily: Annotated[bool, Field(description="begin a new file every day (UTC)")] = True
    megabytes: Annotated[
        float, Field(gt=0, le=1000, description="begin a new file before this one grows larger")
    ] = 100.0
    compress: Annotated[bool, Field(description="compress the files of before with gzip")] = True
    keep: Annotated[
        int | None, Field(ge=1, description="how many files of before to keep; all, if not given")
    ] = None

    events: ClassVar[Sequence[EventType]] = (EventType.CALL_ENDED, EventType.CALL_CORRECTED)

    def handle(self, event: CallEvent, context: Context) -> None:
        if self.format == "csv":
            line = _row(_cell(event, place) for place in _COLUMNS.values())
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

    def _append(self, id: str, line: bytes, context: Context) -> bool:  # noqa: A002
        """Add a line, unless it is there. True: another file was begun for it.

        Raises:
            OSError: the line is not there, or might not be after a power cut.
        """
        with self._locked():
            with self._opened() as file:
                self._mend(file, context)
                if _has(file, id, everywhere=context.attempt > 1):
                    os.fsync(file.fileno())
                    return False
                full = self._is_over(file, len(line))
            if full:
                self._put_away()
            with self._opened() as file:
                new = _size(file) == 0
                _write(file, (self._header + line) if new else line)
                os.fsync(file.fileno())
            if new:
                _sync(self.path.parent)
        return full

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, of all threads and processes."""
        with self._beside("lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _opened(self) -> FileIO:
        return self.path.open("a+b", buffering=0)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{suffix}")

    @property
    def _header(self) -> bytes:
        return _row(_COLUMNS) if self.format == "csv" else b""

    def _mend(self, file: FileIO, context: Context) -> None:
        """Put aside a last line without an end: its writer died, and its event comes again."""
        size = _size(file)
        if size == 0 or os.pread(file.fileno(), 1, size - 1) == b"\n":
            return
        file.seek(max(0, size - LOOK_BACK))
        torn = file.readall().rpartition(b"\n")[2]
        # Not deleted: it may be that an editor left it so.
        aside = self.path.with_name(f"{self.path.name}.torn")
        with aside.open("ab") as rest:
            rest.write(torn + b"\n")
            rest.flush()
            os.fsync(rest.fileno())
        file.truncate(size - len(torn))
        context.log.warning("the last line of %s had no end: it is in %s now", self.path, aside)

    def _is_over(self, file: FileIO, more: int) -> bool:
        """Does another file begin before `more` bytes are added?"""
        status = os.fstat(file.fileno())
        if status.st_size == 0:
            return False
        if status.st_size + more > self.megabytes * 1_000_000:
            return True
        if self.daily and _moment(status.st_mtime).date() != datetime.now(UTC).date():
            return True
        file.seek(0)
        return file.read(len(self._header)) != self._header

    # The files of before

    def _put_away(self) -> None:
        """Name the file after the moment of its last line, so that names sort by time."""
        moment = _moment(self.path.stat().st_mtime)
        while (kept := self._kept_as(moment)).exists() or _compressed(kept).exists():
            moment += timedelta(microseconds=1)
        self.path.rename(kept)
        _sync(self.path.parent)

    def _kept_as(self, moment: datetime) -> Path:
        return self.path.with_stem(f"{self.path.stem}-{moment:%Y%m%d-%H%M%S-%f}")

    def _tidy(self, context: Context) -> None:
        """Compress and delete files of before. What fails here is tried again with the next."""
        try:
            with self._beside("tidy").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                kept = self._kept()
                for path in kept[: -self.keep] if self.keep else []:
                    path.unlink()
                for path in kept[-self.keep if self.keep else 0 :] if self.compress else []:
                    if path.suffix != ".gz":
                        _compress(path)
        except BlockingIOError:  # another process is at it
            return
        except OSError as error:
            context.log.error("cannot put away files of before %s: %s", self.path, error)

    def _kept(self) -> list[Path]:
        """The files of before, oldest first."""
        name = re.compile(
            rf"{re.escape(self.path.stem)}-\d{{8}}-\d{{6}}-\d{{6}}{re.escape(self.path.suffix)}"
            r"(\.gz)?"
        )
        return sorted(path for path in self.path.parent.iterdir() if name.fullmatch(path.name))


def _size(file: FileIO) -> int:
    return file.seek(0, os.SEEK_END)


def _has(file: FileIO, id: str, *, everywhere: bool) -> bool:  # noqa: A002
    """Is a line with this id there? A first attempt follows a crash so soon that it is near."""
    size = _size(file)
    if size == 0:
        return False
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(id.encode(), 0 if everywhere else max(0, size - LOOK_BACK)) >= 0


def _write(file: FileIO, data: bytes) -> None:
    """All of it or, when the disk is full, nothing."""
    size = _size(file)
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError:
        with suppress(OSError):  # then the next writer mends it
            file.truncate(size)
        raise


def _sync(folder: Path) -> None:
    """Make the names in a folder outlive a power cut."""
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
        with path.open("rb") as source, part.open("wb") as target:
            with gzip.open(target, "wb") as compressing:
                shutil.copyfileobj(source, compressing, LOOK_BACK)
            target.flush()
            os.fsync(target.fileno())
        part.rename(_compressed(path))
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)
    path.unlink()


def _moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)


def _row(cells: Iterable[str]) -> bytes:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _cell(event: CallEvent, place: str) -> str:
    """As spreadsheets read it: one line, times in UTC without saying so."""
    value: Any = event
    for name in place.split("."):
        value = getattr(value, name, None)  # a raw event has no summary
    match value:
        case None:
            return ""
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    text = _CONTROL.sub(" ", str(value))
    return f"'{text}" if _FORMULA.match(text) else text
