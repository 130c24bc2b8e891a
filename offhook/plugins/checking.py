"""Checks all configured plugins at once: which can run, and what is wrong with the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from offhook.errors import BrokenPlugin, ConfigError
from offhook.plugins.finding import plug_handler, plug_lookup
from offhook.plugins.own_code import what_failed
from offhook.plugins.plugged import PluggedHandler, PluggedLookup
from offhook.settings import (
    HandlerSettings,
    LookupSettings,
    Settings,
    load_settings,
    sound_tables,
    table_of,
)

Table = TypeVar("Table")


@dataclass(frozen=True)
class Plugins:
    """The configured handlers and lookups that can run, and what is wrong with the others.

    Attributes:
        problems: a sentence for each wrong setting: correct them before a process starts.
        broken: a sentence for each plugin whose own code fails, by `handlers.NAME` or
            `lookups.NAME`. The others run without it; the events of a broken handler wait.
        warnings: a sentence for each lookup that lacks its data, such as a file.
    """

    handlers: dict[str, PluggedHandler] = field(default_factory=dict)
    lookups: dict[str, PluggedLookup] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def plug_all(
    handlers: Mapping[str, HandlerSettings], lookups: Mapping[str, LookupSettings]
) -> Plugins:
    """Plug these handlers and lookups. Raises nothing: see `problems` and `broken`."""
    found = Plugins()

    def plug(kind: str, plug_one: Callable[[str, Any], Any], tables: Mapping[str, Any]) -> None:
        for name, table in tables.items():
            try:
                getattr(found, kind)[name] = plug_one(name, table)
            except BrokenPlugin as error:
                found.broken[f"{kind}.{name}"] = str(error)
            except ConfigError as error:
                found.problems.extend(error.problems)

    plug("handlers", plug_handler, handlers)
    plug("lookups", plug_lookup, lookups)
    for name, plugged in found.lookups.items():
        if problem := _problem(plugged):
            found.warnings.append(f"{table_of('lookups', name)}: {problem}")
    return found


def _problem(plugged: PluggedLookup) -> str | None:
    try:
        return plugged.lookup.problem()
    except Exception as error:  # noqa: BLE001 - a plugin's code may raise anything
        return f"its `problem()` failed: {what_failed(error)}"


def check_all() -> Plugins:
    """Plug what is configured, however wrong the rest of the configuration is.

    Returns:
        The plugins; their `problems` begin with those of the settings.
    """
    try:
        settings = load_settings()
    except ConfigError as error:
        found = plug_all(*sound_tables())
        found.problems[:0] = error.problems
        return found
    return plug_all(settings.all_handlers, settings.all_lookups)


def load_checked() -> Settings:
    """Read the configuration, and check the tables of its plugins too.

    Raises:
        ConfigError: every wrong setting, those of the plugins too, in one pass.
    """
    if problems := check_all().problems:
        raise ConfigError(problems)
    return load_settings()


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
