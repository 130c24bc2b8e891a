"""`Csv`: find names in a CSV file, such as the export of an address book."""

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
from offhook.errors import did_you_mean

_DELIMITERS = ",;\t"
_END = 5  # last digits that index a number; phone numbers have no fewer
# A number as people write it: digits and separators, without the extension after it.
_WRITTEN = re.compile(r"[0-9][0-9 ().\-/–\N{NO-BREAK SPACE}]*[0-9]")


def _columns(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Columns = Annotated[tuple[str, ...], BeforeValidator(_columns)]


@dataclass(frozen=True)
class Csv(Lookup):
    """Find names in a CSV file with a header, such as an exported address book."""

    remember: ClassVar[float] = 0.0  # the file is in memory
    largest: ClassVar[int] = 20_000_000  # bytes of a file: each worker process holds one copy

    path: Annotated[Path, Field(description="the file; a changed file is read again")]
    number: Annotated[
        Columns,
        Field(min_length=1, description="the column with the number, or several such columns"),
    ] = ("number",)
    name: Annotated[
        Columns,
        Field(min_length=1, description="the column with the name, or several to join"),
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
        return _Book(self.path, self.number, self.name, self.largest)


class _Book:
    """The numbers in a file, as written there, each with its name."""

    def __init__(
        self, path: Path, numbers: Sequence[str], names: Sequence[str], largest: int
    ) -> None:
        self._path = path
        self._numbers = numbers
        self._names = names
        self._largest = largest
        self._reading = Lock()
        self._read: tuple[int, ...] = ()  # identifies the file that was read
        self._entries: dict[str, list[tuple[str, str]]] = {}  # by the number's last digits

    def find(self, number: Number) -> str | None:
        """Return the first name with this number. Raises TemporaryError like `read`."""
        self.read()
        end = number.national[-7:]
        for written, name in self._entries.get(number.digits[-_END:], ()):
            # First the cheap comparison, then is_same.
            if _digits(written).endswith(end) and number.is_same(written):
                return name
        return None

    def read(self) -> None:
        """Read the file if it has changed.

        Raises:
            TemporaryError: the file cannot be read, or is not valid.
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
                line = error.object.count(b"\n", 0, error.start) + 1
                raise TemporaryError(
                    f"{self._path}, line {line}: is not UTF-8: save it as CSV UTF-8"
                ) from error
            except csv.Error as error:
                raise TemporaryError(f"{self._path} is not CSV: {error}") from error

    def _all(self, size: int) -> dict[str, list[tuple[str, str]]]:
        if size > self._largest:
            raise TemporaryError(
                f"{self._path} has more than {self._largest // 1_000_000} MB: "
                "put the names into a database, and use the lookup sql"
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
        """The header and the rows, with the delimiter that gives the configured columns."""
        wanted, best = (*self._numbers, *self._names), list[str]()
        for delimiter in _DELIMITERS:
            file = io.StringIO(text, newline="")
            rows = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            header = [column.strip() for column in next(rows, [])]
            if set(wanted) <= set(header):
                return header, rows
            best = max(best, header, key=len)
        missing = [column for column in wanted if column not in best]
        # Do not quote the first line: without a header, it has a phone number.
        hints = filter(None, (did_you_mean(column, best) for column in missing))
        raise TemporaryError(
            f"{self._path} has no column {', '.join(missing)} in its first line: "
            f"name its columns in the options number and name{next(hints, '')}"
        )


def _state(found: stat_result) -> tuple[int, ...]:
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _digits(written: str) -> str:
    found = _WRITTEN.search(written)
    return re.sub(r"[^0-9]", "", found[0]) if found else ""
