"""Names from a CSV file, such as the export of an address book."""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import stat_result
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from offhook import Context, Lookup, Number, TemporaryError

MOST = 20_000_000  # bytes of a file: each worker process reads it for itself
_DELIMITERS = ",;\t"
_END = 5  # digits at the end by which numbers are found: none that counts has fewer
# A number as people write it: digits, and what groups them. The extension behind is not it.
_WRITTEN = re.compile(r"[0-9][0-9 ().\-/–\N{NO-BREAK SPACE}]*[0-9]")


def _columns(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Columns = Annotated[tuple[str, ...], BeforeValidator(_columns)]


@dataclass(frozen=True)
class Csv(Lookup):
    """Names from a CSV file with a header, such as the export of an address book."""

    remember: ClassVar[float] = 0.0  # all of it is at hand

    path: Annotated[Path, Field(description="the file; it is read again when it has changed")]
    number: Annotated[
        Columns,
        Field(min_length=1, description="the column with the number, or several, each with one"),
    ] = ("number",)
    name: Annotated[
        Columns,
        Field(min_length=1, description="the column with the name, or several that make it up"),
    ] = ("name",)

    def name_of(self, number: Number, context: Context) -> str | None:
        return self._book.find(number)

    def problem(self) -> str | None:
        try:
            self._book.read()
        except TemporaryError as error:
            return str(error)
        return None

    @cached_property
    def _book(self) -> "_Book":
        return _Book(self.path, self.number, self.name)


class _Book:
    """What is in the file: numbers as they are written there, each with a name."""

    def __init__(self, path: Path, numbers: Sequence[str], names: Sequence[str]) -> None:
        self._path = path
        self._numbers = numbers
        self._names = names
        self._reading = Lock()
        self._read: tuple[int, ...] = ()  # what tells the file that was read from another
        self._entries: dict[str, list[tuple[str, str]]] = {}  # by the last digits of the number

    def find(self, number: Number) -> str | None:
        """The first name whose number this is. Raises TemporaryError as `read`."""
        self.read()
        end = number.national[-7:]
        for written, name in self._entries.get(number.digits[-_END:], ()):
            # Before is_same, which takes its time.
            if _digits(written).endswith(end) and number.is_same(written):
                return name
        return None

    def read(self) -> None:
        """Read the file, unless it is the one that was read.

        Raises:
            TemporaryError: it cannot be read, or is not what it should be.
        """
        with self._reading:
            try:
                there = self._path.stat()
                if _state(there) != self._read:
                    self._entries = self._all(there.st_size)
                    self._read = _state(there)
            except OSError as error:
                raise TemporaryError(f"{self._path} cannot be read: {error.strerror}") from error
            except UnicodeDecodeError as error:
                raise TemporaryError(
                    f"{self._path} is not UTF-8: save it as CSV UTF-8 (byte {error.start})"
                ) from error
            except csv.Error as error:
                raise TemporaryError(f"{self._path} is not CSV: {error}") from error

    def _all(self, size: int) -> dict[str, list[tuple[str, str]]]:
        if size > MOST:
            raise TemporaryError(
                f"{self._path} has more than {MOST // 1_000_000} MB: "
                "so many names belong in a database (sql)"
            )
        header, rows = self._table(self._path.read_text("utf-8-sig"))
        numbers = [header.index(column) for column in self._numbers]
        names = [header.index(column) for column in self._names]
        entries: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for row in rows:
            if len(row) < len(header):
                row += [""] * (len(header) - len(row))
            name = " ".join([row[column] for column in names]).strip()
            for column in numbers:
                end = _digits(row[column])[-_END:]
                if name and end:
                    entries[end].append((row[column], name))
        return dict(entries)

    def _table(self, text: str) -> tuple[list[str], Iterator[list[str]]]:
        """The header and the rows, read with the delimiter with which our columns are there."""
        wanted, best = (*self._numbers, *self._names), list[str]()
        for delimiter in _DELIMITERS:
            file = io.StringIO(text, newline="")
            rows = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            header = [column.strip() for column in next(rows, [])]
            if set(wanted) <= set(header):
                return header, rows
            best = max(best, header, key=len)
        missing = ", ".join(column for column in wanted if column not in best)
        # Not what is there: without a header it is somebody's number.
        raise TemporaryError(
            f"{self._path} has no column {missing} in its first line: "
            "name those that it has in the options number and name"
        )


def _state(found: stat_result) -> tuple[int, ...]:
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _digits(written: str) -> str:
    found = _WRITTEN.search(written)
    return re.sub(r"[^0-9]", "", found[0]) if found else ""
