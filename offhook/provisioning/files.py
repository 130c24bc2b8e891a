"""Extensions in files: CSV to set many up, TOML to keep them under version control."""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from offhook.call import Kind
from offhook.errors import ConfigError
from offhook.event import CALLBACKS, EventType
from offhook.extensions import ExtensionSettings, Name

EXTENSION = re.compile(r"[0-9]+\*[0-9]+")
ALL = "all"  # instead of a list of events or handlers

_COLUMNS = ("extension", "kind", "events", "handlers", "label", "owner")
_HEAD = """\
# The extensions that are set up, one table each: ["PBX"."EXTENSION"].
# `offhook setup apply FILE` changes Offhook and the PBX to match this file.
"""


class _ExtensionTable(BaseModel):
    """The table of one extension in the TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str | None = None
    owner: str | None = None
    kind: Kind | None = None
    handlers: tuple[str, ...] | None = None
    events: tuple[EventType, ...] | None = None
    method: Literal["GET", "POST"] = "POST"
    user: Annotated[str, StringConstraints(pattern=r"^(@me|@viewer|@owner|[0-9]+)$")] | None = None


_File = TypeAdapter(dict[str, dict[str, _ExtensionTable]])


def check_extension(text: str) -> str:
    """Return the number of an extension in its extended form.

    Raises:
        ConfigError: it is not one. A short number means different extensions for different users.
    """
    number = text.strip()
    if not EXTENSION.fullmatch(number):
        raise ConfigError(_not_an_extension(text))
    return number


def read_events(text: str) -> tuple[EventType, ...]:
    """Read event types, separated by commas, semicolons or spaces; `all` is all of them.

    Raises:
        ConfigError: one of them is not an event type.
    """
    words = _words(text)
    if words == [ALL]:
        return CALLBACKS
    unknown = [word for word in words if word not in set(CALLBACKS)]
    if unknown or not words:
        wrong = ", ".join(unknown) or "nothing"
        raise ConfigError(f"{wrong} is not an event type: choose from {', '.join(CALLBACKS)}")
    return tuple(each for each in CALLBACKS if each in words)


def read_kind(text: str) -> Kind:
    """Read the kind of an extension, in upper or lower case.

    Raises:
        ConfigError: it is not a kind.
    """
    try:
        return Kind(text.lower())
    except ValueError:
        raise ConfigError(
            f"{text} is not a kind of extension: choose from {', '.join(Kind)}"
        ) from None


def read_handlers(text: str) -> tuple[str, ...] | None:
    """Read names of handlers; None, from `all`, means all handlers, now and later."""
    words = _words(text)
    return None if words == [ALL] else tuple(dict.fromkeys(words))


def read_csv(path: Path) -> dict[str, dict[str, Any]]:
    """Read extensions, each with the fields of `ExtensionSettings` that the file fills in.

    Raises:
        ConfigError: all faults, each with its line.
    """
    lines = _text(path).splitlines()
    delimiter = ";" if lines and lines[0].count(";") > lines[0].count(",") else ","
    rows = csv.DictReader(lines, delimiter=delimiter, restkey="", strict=True)
    columns = [name.strip().lower() for name in rows.fieldnames or ()]
    if "extension" not in columns or not set(columns) <= set(_COLUMNS):
        raise ConfigError(
            f"{path}: the first line must name the columns: extension, and optionally "
            f"{', '.join(_COLUMNS[1:])}; it has {', '.join(columns) or 'none'}"
        )
    rows.fieldnames = columns
    found: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    try:
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            try:
                number, given = _row(row)
            except ConfigError as error:
                problems += [f"{where}: {problem}" for problem in error.problems]
                continue
            if number in found:
                problems.append(f"{where}: {number} appears twice")
            found[number] = given
    except csv.Error as error:
        problems.append(f"{path}, line {rows.line_num}: {error}")
    if problems:
        raise ConfigError(problems)
    return found


def read_toml(path: Path) -> dict[Name, ExtensionSettings]:
    """Read the extensions in a file in the format of `to_toml`.

    Raises:
        ConfigError: all faults, each with its place.
    """
    import tomllib

    try:
        tables = _File.validate_python(tomllib.loads(_text(path)))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        raise ConfigError([_sentence(path, fault) for fault in error.errors()]) from error
    wrong = [n for numbers in tables.values() for n in numbers if not EXTENSION.fullmatch(n)]
    if wrong:
        raise ConfigError([f"{path}: {_not_an_extension(number)}" for number in wrong])
    return {
        (pbx, number): _settings(table)
        for pbx, numbers in tables.items()
        for number, table in numbers.items()
    }


def to_toml(extensions: Mapping[Name, ExtensionSettings]) -> str:
    """Return the extensions as a file; the same extensions make the same text."""
    return _HEAD + "".join(
        f"\n[{quoted(pbx)}.{quoted(number)}]\n{_lines(settings)}"
        for (pbx, number), settings in sorted(extensions.items())
    )


def _not_an_extension(text: str) -> str:
    return f"{text!r} is not an extension: write the extended number, such as 0003*210"


def _row(row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if row.get(""):
        raise ConfigError("has more cells than columns: put quotes around a cell with commas")
    cells = {name: (value or "").strip() for name, value in row.items()}
    given: dict[str, Any] = {n: cells[n] for n in ("label", "owner") if cells.get(n)}
    if cells.get("kind"):
        given["kind"] = read_kind(cells["kind"])
    if cells.get("events"):
        given["events"] = read_events(cells["events"])
    if cells.get("handlers"):
        given["handlers"] = read_handlers(cells["handlers"])
    return check_extension(cells["extension"]), given


def _settings(table: _ExtensionTable) -> ExtensionSettings:
    given = table.model_dump()
    if table.events is not None:
        given["events"] = tuple(each for each in CALLBACKS if each in table.events)
    return ExtensionSettings(**given)


def _lines(settings: ExtensionSettings) -> str:
    values: dict[str, str | Sequence[str] | None] = {
        "label": settings.label,
        "owner": settings.owner,
        "kind": settings.kind,
        "handlers": settings.handlers,
        "events": settings.events,
        "method": settings.method if settings.method != "POST" else None,
        "user": settings.user,
    }
    return "".join(
        f"{name} = {quoted(value) if isinstance(value, str) else quoted_list(value)}\n"
        for name, value in values.items()
        if value is not None
    )


def quoted_list(values: Iterable[str]) -> str:
    """A TOML array of strings."""
    return f"[{', '.join(map(quoted, values))}]"


def quoted(text: str) -> str:
    """A TOML string: as in JSON, except for DEL."""
    return json.dumps(str(text), ensure_ascii=False).replace("\x7f", "\\u007f")


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[,;\s]+", text) if word]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")  # spreadsheets write a byte order mark
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8: save it as UTF-8") from error


def _sentence(path: Path, fault: Any) -> str:
    place = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        return f"{path}: {place}: an extension has no such setting"
    return f"{path}: {place}: {fault['msg'].removeprefix('Value error, ')}"
