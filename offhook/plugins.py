"""Plugins: what a table's `use` names, found among what is installed, and given its options."""

import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from offhook.errors import ConfigError
from offhook.settings import config_path, what_is_wrong

T = TypeVar("T")
Table = TypeVar("Table")


@cache  # to look through all packages takes longer than all else that a first delivery waits for
def installed(group: str) -> Mapping[str, EntryPoint]:
    """The plugins that are installed under a group of entry points, built-in ones too, by name.

    What is installed later, a process that runs does not see.
    """
    return {point.name: point for point in sorted(entry_points(group=group))}


def load(use: str, group: str, kind: str) -> Any:
    """What `use` names.

    Args:
        use: the entry-point name of an installed plugin, or `package.module:name`.
        group: of entry points.
        kind: what a person calls such a plugin.

    Raises:
        ConfigError: there is none; the message says what there is.
    """
    points = installed(group)
    try:
        if use in points:
            return points[use].load()
        module, colon, attribute = use.partition(":")
        if not colon:
            raise ConfigError(
                f"no {kind} is called {use!r}: installed are {', '.join(points)}; "
                "one of your own is named as package.module:name"
            )
        found = _import(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except ImportError as error:
        hint = f": install it with pip install 'offhook[{use}]'" if use in points else ""
        raise ConfigError(f"{use!r} cannot be imported: {error}{hint}") from error
    except AttributeError as error:
        raise ConfigError(f"{use!r} cannot be loaded: {error}") from error
    return found


def faults(plug: Callable[[str, Table], object], tables: Mapping[str, Table]) -> list[str]:
    """What is wrong with these tables of the configuration: a sentence each, with its key.

    Args:
        plug: takes the name of a table and the table; raises ConfigError.
    """
    problems = []
    for name, table in tables.items():
        try:
            plug(name, table)
        except ConfigError as error:
            problems += error.problems
    return problems


def with_options(target: type[T], options: Mapping[str, Any], where: str) -> T:
    """The plugin with these options, as the configuration gives them.

    Raises:
        ConfigError: every wrong one, its name after `where`.
    """
    try:
        return TypeAdapter(target).validate_python(_from_files(options, target, where))
    except ValidationError as error:
        raise ConfigError(
            [
                f"{'.'.join([where, *map(str, fault['loc'])])}: {what_is_wrong(fault)}"
                for fault in error.errors(include_input=False, include_url=False)
            ]
        ) from error


def _from_files(options: Mapping[str, Any], target: type, where: str) -> dict[str, Any]:
    """Replace each option `NAME_file` by `NAME`, read from that file: where secrets belong."""
    fields = getattr(target, "__dataclass_fields__", {})
    read: dict[str, Any] = {}
    for key, value in options.items():
        name = key.removesuffix("_file")
        if key in fields or name not in fields or name == key:
            read[key] = value
            continue
        try:
            read[name] = Path(value).read_text().strip()
        except OSError as error:
            raise ConfigError(f"{where}.{key}: cannot be read: {error.strerror}") from error
    return read


def _import(module: str) -> Any:
    """A module of the operator's own: beside the configuration, or wherever Python finds it."""
    folder = str(config_path().parent.absolute())
    if folder not in sys.path:
        sys.path.append(folder)
    return import_module(module)
