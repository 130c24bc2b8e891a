"""An Offhook lookup: finds callers' names in a JSON file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from offhook import Context, Lookup, Number
from pydantic import Field, TypeAdapter

_entries = TypeAdapter(dict[str, str])


@dataclass(frozen=True)
class AddressBook(Lookup):
    """Names from a JSON file that maps phone numbers to names."""

    remember: ClassVar[float] = 60.0  # seconds: a change to the file takes effect within a minute

    path: Annotated[Path, Field(description="the JSON file")]

    def name_of(self, number: Number, context: Context) -> str | None:
        for written, name in self._read().items():
            if number.is_same(written):
                return name
        return None

    def problem(self) -> str | None:
        try:
            self._read()
        except (OSError, ValueError) as error:
            return f"{self.path} is not a usable address book: {error}"
        return None

    def _read(self) -> dict[str, str]:
        return _entries.validate_json(self.path.read_bytes())
