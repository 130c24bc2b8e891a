"""Extensions in files: a CSV table to set up from, a TOML file to keep under version control."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from offhook.call import Kind
from offhook.errors import ConfigError
from offhook.event import CALLBACKS, EventType
from offhook.extensions import ExtensionSettings, Name

EXTENSION = re.compile(r"[0-9]+\*[0-9]+")
ALL = "all"  # in the place of events or handlers

_COLUMNS = ("extension", "kind", "events", "handlers", "label", "owner")
_HEAD = """\
# The extensions that are set up, one table each: ["PBX"."EXTENSION"].
# `offhook setup apply FILE` makes Offhook and the PBX what is written here.
"""


class _Entry(BaseModel):
    """One extension in the TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str | None = None
    owner: str | None = None
    kind: Kind | None = None
    handlers: tuple[str, ...] | None = None
    events: tuple[EventType, ...] | None = None
    method: Literal["GET", "POST"] = "POST"
    user: Annotated[str, StringConstraints(pattern=r"^(@me|@viewer|@owner|[0-9]+)$")] | None = None


_File = TypeAdapter(dict[str, dict[str, Annotated[_Entry, Field()]]])


def check_extension(text: str) -> str:
    """The number of an extension, in its extended form.

    Raises:
        ConfigError: it is none. A short number names other extensions for other users.
    """
    number = text.strip()
    if not EXTENSION.fullmatch(number):
        raise ConfigError(f"{text!r} is no extension: write it whole, such as 0003*210")
    return number


def read_events(text: str) -> tuple[EventType, ...]:
    """Event types in a text, separated by commas, semicolons or spaces; `all` is all.

    Raises:
        ConfigError: one of them is none.
    """
    words = _words(text)
    if words == [ALL]:
        return CALLBACKS
    unknown = [word for word in words if word not in set(CALLBACKS)]
    if unknown or not words:
        raise ConfigError(
            f"{', '.join(unknown) or 'nothing'} is no event type: there are {', '.join(CALLBACKS)}"
        )
    return tuple(each for each in CALLBACKS if each in words)


def read_kind(text: str) -> Kind:
    """What an extension is, by its name in any case.

    Raises:
        ConfigError: there is no such kind.
    """
    try:
        return Kind(text.lower())
    except ValueError:
        raise ConfigError(f"{text} is no kind: there are {', '.join(Kind)}") from None


def read_handlers(text: str) -> tuple[str, ...] | None:
    """Names of handlers in a text; `all` is all of them, now and later."""
    words = _words(text)
    return None if words == [ALL] else tuple(dict.fromkeys(words))


def read_csv(path: Path) -> dict[str, dict[str, Any]]:
    """What the file says of each extension: the fields of `ExtensionSettings` that it fills in.

    Raises:
        ConfigError: every fault, each with its line.
    """
    lines = _text(path).splitlines()
    delimiter = ";" if lines and lines[0].count(";") > lines[0].count(",") else ","
    rows = csv.DictReader(lines, delimiter=delimiter, restkey="", strict=True)
    columns = [name.strip().lower() for name in rows.fieldnames or ()]
    if "extension" not in columns or not set(columns) <= set(_COLUMNS):
        raise ConfigError(
            f"{path}: the first line must name the columns: extension, and if you like "
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
                problems.append(f"{where}: {number} is there twice")
            found[number] = given
    except csv.Error as error:
        problems.append(f"{path}, line {rows.line_num}: {error}")
    if problems:
        raise ConfigError(problems)
    return found


def read_toml(path: Path) -> dict[Name, ExtensionSettings]:
    """The extensions in a file that `to_toml` could have written.

    Raises:
        ConfigError: every fault, each with its place.
    """
    import tomllib

    try:
        entries = _File.validate_python(tomllib.loads(_text(path)))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        raise ConfigError([_sentence(path, fault) for fault in error.errors()]) from error
    wrong = [n for numbers in entries.values() for n in numbers if not EXTENSION.fullmatch(n)]
    if wrong:
        raise ConfigError(
            [f"{path}: {n!r} is no extension: write it whole, such as 0003*210" for n in wrong]
        )
    return {
        (pbx, number): _settings(entry)
        for pbx, numbers in entries.items()
        for number, entry in numbers.items()
    }


def to_toml(extensions: Mapping[Name, ExtensionSettings]) -> str:
    """The extensions as a file; the same ones give the same text."""
    return _HEAD + "".join(
        f"\n[{_quoted(pbx)}.{_quoted(number)}]\n{_lines(settings)}"
        for (pbx, number), settings in sorted(extensions.items())
    )


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


def _settings(entry: _Entry) -> ExtensionSettings:
    given = entry.model_dump()
    if entry.events is not None:
        given["events"] = tuple(each for each in CALLBACKS if each in entry.events)
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
        f"{name} = {_quoted(value) if isinstance(value, str) else _list(value)}\n"
        for name, value in values.items()
        if value is not None
    )


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_quoted, values))}]"


def _quoted(text: str) -> str:
    """A TOML string. JSON's are that, but for DEL."""
    return json.dumps(str(text), ensure_ascii=False).replace("\x7f", "\\u007f")


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[,;\s]+", text) if word]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")  # spreadsheets begin a file with a mark
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8; save it as that") from error


def _sentence(path: Path, fault: Any) -> str:
    place = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        return f"{path}: {place}: there is no such setting of an extension"
    return f"{path}: {place}: {fault['msg'].removeprefix('Value error, ')}"
