"""Finds the handlers and lookups that the configuration names, and sets their options."""

import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from offhook.errors import BrokenPlugin, ConfigError, did_you_mean
from offhook.event import CALLBACKS, EventType
from offhook.handler import Handler
from offhook.lookup import Lookup
from offhook.plugins.own_code import place, plugin_code
from offhook.plugins.plugged import Function, PluggedHandler, PluggedLookup
from offhook.settings import HandlerSettings, LookupSettings, config_folder, table_of
from offhook.settings.faults import Unreadable, read_secret, unknown_types, what_is_wrong

T = TypeVar("T")
Kind = Literal["handlers", "lookups"]


@cache  # scanning the packages takes longer than anything else before a first delivery
def installed(kind: Kind) -> Mapping[str, EntryPoint]:
    """The installed handlers or lookups by name, including the built-in ones.

    A running process does not see plugins that are installed later.
    """
    return {point.name: point for point in sorted(entry_points(group=f"offhook.{kind}"))}


def plugin_modules(
    handlers: Mapping[str, HandlerSettings], lookups: Mapping[str, LookupSettings]
) -> set[str]:
    """The modules that these tables name: those of installed plugins, and one's own."""
    return {
        *(_target(each.use, "handlers")[0] for each in handlers.values()),
        *(_target(each.use, "lookups")[0] for each in lookups.values()),
    }


def _target(use: str, kind: Kind) -> tuple[str, str]:
    """The module and the name in it that `use` names; no name if it is no plugin at all."""
    point = installed(kind).get(use)
    if point is not None:
        return point.module, point.attr
    module, _, name = use.partition(":")
    return module, name


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
    module, attribute = _target(use, kind)
    if use not in points and ":" not in use:
        raise ConfigError(
            f"no {kind[:-1]} is called {use!r}: installed are {', '.join(points)}; "
            f"write your own as package.module:name{did_you_mean(use, points)}"
        )
    try:
        with plugin_code(repr(use)):
            found = _import(module)
    except BrokenPlugin as error:
        if isinstance(error.__cause__, ImportError):
            raise _not_importable(use, module, points.get(use), error.__cause__) from error
        raise
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ConfigError(
                f"{use!r} cannot be loaded: {module} has no {name!r}"
                + did_you_mean(name, [each for each in vars(found) if not each.startswith("_")])
            )
        found = getattr(found, name)
    return found


def _import(module: str) -> Any:
    """Import a module from the configuration's folder, or from wherever Python finds it."""
    folder = str(config_folder())
    if folder not in sys.path:
        sys.path.append(folder)
    return import_module(module)


def _not_importable(
    use: str, module: str, point: EntryPoint | None, error: ImportError
) -> ConfigError:
    if point is not None and point.dist is not None and point.dist.name == "offhook":
        return ConfigError(
            f"{use!r} cannot be imported: {error}: install it with pip install 'offhook[{use}]'"
        )
    said = f"{use!r} cannot be imported: {error}{place(error)}"
    if error.name and f"{module}.".startswith(f"{error.name}."):
        file = f"{module.partition('.')[0]}.py"
        return ConfigError(f"{said}: put {file} into {config_folder()}, or install its package")
    return BrokenPlugin(f"{said}: install what it needs into Offhook's environment")


def _concrete(found: Any, base: type, use: str) -> Any:
    if not (
        inspect.isclass(found)
        and issubclass(found, base)
        and is_dataclass(found)
        and not inspect.isabstract(found)
    ):
        raise ConfigError(f"{use!r} must be a dataclass that inherits from offhook.{base.__name__}")
    events = getattr(found, "events", CALLBACKS)
    wrong = "it must be a tuple" if isinstance(events, str) else unknown_types(events)
    if wrong:
        raise ConfigError(f"{use!r} cannot be loaded: {found.__name__}.events: {wrong}")
    return found


def plug_handler(name: str, settings: HandlerSettings) -> PluggedHandler:
    """Load the handler of a `[handlers.NAME]` table and set its options.

    Raises:
        ConfigError: every fault of the table, each with its key.
    """
    handler: Handler | Function = _configured(load_handler, settings, table_of("handlers", name))
    with plugin_code(f"{table_of('handlers', name)}: {settings.use!r}"):
        return PluggedHandler.of(name, settings, handler)


def plug_lookup(name: str, settings: LookupSettings) -> PluggedLookup:
    """Load the lookup of a `[lookups.NAME]` table and set its options; like `plug_handler`."""
    lookup = _configured(load_lookup, settings, table_of("lookups", name))
    return PluggedLookup(name, settings, lookup)


def _configured(
    load: Callable[[str], Any], table: HandlerSettings | LookupSettings, where: str
) -> Any:
    try:
        target = load(table.use)
    except ConfigError as error:
        raise type(error)([f"{where}.use: {problem}" for problem in error.problems]) from error
    if inspect.isclass(target):
        return with_options(target, table.options, f"{where}.options")
    if table.options:
        raise ConfigError(
            f"{where}.options: a function takes no options; use a handler class instead"
        )
    return target


def with_options(target: type[T], options: Mapping[str, Any], where: str) -> T:
    """Build a plugin from its options in the configuration.

    A relative path among them starts at the configuration's folder.

    Raises:
        ConfigError: every wrong option, its name after `where`.
        BrokenPlugin: the plugin's own code fails.
    """
    with plugin_code(where):
        given = _read_options(options, target)
        try:
            return TypeAdapter(target).validate_python(given, context={"folder": config_folder()})
        except ValidationError as error:
            known = getattr(target, "__dataclass_fields__", {})
            faults = error.errors(include_url=False)
            # The cause may quote a secret.
            raise ConfigError([_option_fault(each, known, where) for each in faults]) from None


def _option_fault(fault: Any, known: Mapping[str, Any], where: str) -> str:
    name = ".".join([where, *map(str, fault["loc"])])
    if isinstance(fault["input"], Unreadable):
        return f"{name}{fault['input'].why}"
    hint = ""
    if fault["type"] == "unexpected_keyword_argument":
        hint = did_you_mean(str(fault["loc"][-1]), known)
    return f"{name}: {what_is_wrong(fault)}{hint}"


def _read_options(options: Mapping[str, Any], target: type) -> dict[str, Any]:
    """Replace each option `NAME_file` by `NAME` with that file's content; complete paths."""
    fields = getattr(target, "__dataclass_fields__", {})
    hints = get_type_hints(target)
    read: dict[str, Any] = {}
    for key, value in options.items():
        name = key.removesuffix("_file")
        if key not in fields and name in fields and name != key:
            read[name] = read_secret(value, config_folder())
        elif isinstance(value, str) and Path in (hints.get(key), *get_args(hints.get(key))):
            read[key] = config_folder() / value if value else Unreadable("is empty", "")
        else:
            read[key] = value
    return read


def event_types(settings: HandlerSettings) -> frozenset[EventType]:
    """The event types a handler gets: those of its table, or those it is made for.

    Raises:
        ConfigError: as `load_handler`.
    """
    if settings.events is not None:
        return settings.events
    return frozenset(getattr(load_handler(settings.use), "events", CALLBACKS))


def wanted_types(handlers: Mapping[str, HandlerSettings]) -> frozenset[EventType]:
    """The event types that at least one of these handlers gets; a broken plugin gets none."""
    wanted: frozenset[EventType] = frozenset()
    for each in handlers.values():
        with suppress(BrokenPlugin):
            wanted |= event_types(each)
    return wanted
