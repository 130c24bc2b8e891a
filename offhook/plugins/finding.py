"""Finds the handlers and lookups that the configuration names, and sets their options."""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from offhook.errors import ConfigError
from offhook.event import CALLBACKS, EventType
from offhook.handler import Handler
from offhook.lookup import Lookup
from offhook.plugins.plugged import Function, PluggedHandler, PluggedLookup
from offhook.settings import HandlerSettings, LookupSettings, config_path
from offhook.settings_faults import what_is_wrong

T = TypeVar("T")
Table = TypeVar("Table")
Kind = Literal["handlers", "lookups"]


@cache  # scanning the packages takes longer than anything else before a first delivery
def installed(kind: Kind) -> Mapping[str, EntryPoint]:
    """The installed handlers or lookups by name, including the built-in ones.

    A running process does not see plugins that are installed later.
    """
    return {point.name: point for point in sorted(entry_points(group=f"offhook.{kind}"))}


def load_handler(use: str) -> type[Handler] | Function:
    """The handler class or function that `use` names.

    Args:
        use: the entry-point name of an installed handler, or `package.module:name`.

    Raises:
        ConfigError: it does not exist, cannot be imported or is not a handler.
    """
    found = _load(use, "handlers")
    target: type[Handler] | Function = found
    if inspect.isclass(found):
        target = _concrete(found, Handler, use)
    elif not callable(found):
        raise ConfigError(f"{use!r} is neither a handler class nor a function")
    return target


def load_lookup(use: str) -> type[Lookup]:
    """The lookup class that `use` names; like `load_handler`."""
    lookup: type[Lookup] = _concrete(_load(use, "lookups"), Lookup, use)
    return lookup


def _load(use: str, kind: Kind) -> Any:
    points = installed(kind)
    try:
        if use in points:
            return points[use].load()
        module, colon, attribute = use.partition(":")
        if not colon:
            raise ConfigError(
                f"no {kind[:-1]} is called {use!r}: installed are {', '.join(points)}; "
                "write your own as package.module:name"
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


def _import(module: str) -> Any:
    """Import a module from the configuration's folder, or from wherever Python finds it."""
    folder = str(config_path().parent.absolute())
    if folder not in sys.path:
        sys.path.append(folder)
    return import_module(module)


def _concrete(found: Any, base: type, use: str) -> Any:
    if (
        inspect.isclass(found)
        and issubclass(found, base)
        and is_dataclass(found)
        and not inspect.isabstract(found)
    ):
        return found
    raise ConfigError(f"{use!r} must be a dataclass that inherits from offhook.{base.__name__}")


def plug_handler(name: str, settings: HandlerSettings) -> PluggedHandler:
    """Load the handler of a `[handlers.NAME]` table and set its options.

    Raises:
        ConfigError: every fault of the table, each with its key.
    """
    handler: Handler | Function = _configured(load_handler, settings, f"handlers.{name}")
    return PluggedHandler.of(name, settings, handler)


def plug_lookup(name: str, settings: LookupSettings) -> PluggedLookup:
    """Load the lookup of a `[lookups.NAME]` table and set its options; like `plug_handler`."""
    return PluggedLookup(name, settings, _configured(load_lookup, settings, f"lookups.{name}"))


def _configured(
    load: Callable[[str], Any], table: HandlerSettings | LookupSettings, where: str
) -> Any:
    try:
        target = load(table.use)
    except ConfigError as error:
        raise ConfigError([f"{where}.use: {problem}" for problem in error.problems]) from error
    if inspect.isclass(target):
        return with_options(target, table.options, f"{where}.options")
    if table.options:
        raise ConfigError(
            f"{where}.options: a function takes no options; use a handler class instead"
        )
    return target


def with_options(target: type[T], options: Mapping[str, Any], where: str) -> T:
    """Build a plugin from its options in the configuration.

    Raises:
        ConfigError: every wrong option, its name after `where`.
    """
    try:
        return TypeAdapter(target).validate_python(_read_files(options, target, where))
    except ValidationError as error:
        raise ConfigError(
            [
                f"{'.'.join([where, *map(str, fault['loc'])])}: {what_is_wrong(fault)}"
                for fault in error.errors(include_input=False, include_url=False)
            ]
        ) from error


def _read_files(options: Mapping[str, Any], target: type, where: str) -> dict[str, Any]:
    """Replace each option `NAME_file` by `NAME` with that file's content: for secrets."""
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


def faults(plug: Callable[[str, Table], object], tables: Mapping[str, Table]) -> list[str]:
    """What is wrong with these tables of the configuration: a sentence each, with its key.

    Args:
        plug: takes a table's name and the table; raises ConfigError.
    """
    problems = []
    for name, table in tables.items():
        try:
            plug(name, table)
        except ConfigError as error:
            problems += error.problems
    return problems


def event_types(settings: HandlerSettings) -> frozenset[EventType]:
    """The event types a handler gets: those of its table, or those it is made for.

    Raises:
        ConfigError: as `load_handler`.
    """
    if settings.events is not None:
        return settings.events
    return frozenset(getattr(load_handler(settings.use), "events", CALLBACKS))


def wanted_types(handlers: Mapping[str, HandlerSettings]) -> frozenset[EventType]:
    """The event types that at least one of these handlers gets."""
    return frozenset().union(*map(event_types, handlers.values()))
