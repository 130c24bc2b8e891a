"""The help of installed handlers and lookups, read from their classes."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from offhook.handler import Handler
from offhook.plugins import load_lookup

_WORDS: Mapping[Any, str] = {
    str: "text",
    SecretStr: "text",
    Path: "file",
    bool: "true or false",
    int: "whole number",
    float: "number",
    dict: "table",
}


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a handler or lookup: a field of its class."""

    name: str
    type: str
    required: bool
    default: Any
    description: str


@dataclasses.dataclass(frozen=True)
class Installed:
    """An installed handler or lookup; `problem` says why it cannot be loaded."""

    name: str
    package: str
    help: str = ""
    options: tuple[Option, ...] = ()
    problem: str | None = None


def options(target: type) -> tuple[Option, ...]:
    """Return the options of a handler or lookup class: its dataclass fields."""
    hints = get_type_hints(target, include_extras=True)
    fields = dataclasses.fields(target)
    return tuple(_option(field, hints[field.name]) for field in fields if field.init)


def _option(field: dataclasses.Field[Any], hint: Any) -> Option:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    required = default is dataclasses.MISSING
    if isinstance(default, SecretStr):
        default = default.get_secret_value()  # a default in the source is no secret
    described = [
        each.description
        for each in getattr(hint, "__metadata__", ())
        if isinstance(each, FieldInfo) and each.description
    ]
    return Option(
        name=field.name,
        type=_in_words(hint),
        required=required,
        default=None if required else default,
        description=described[-1] if described else "",
    )


def _in_words(hint: Any) -> str:
    """Name a type in words for a configuration file."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _in_words(arguments[0])
    if origin is Literal:
        return " or ".join(f'"{value}"' for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_in_words(each) for each in arguments if each is not NoneType)
    if origin in (list, tuple, set, frozenset):
        return f"list of {_in_words(arguments[0])}"
    known: Any = origin or hint
    return _WORDS.get(known, getattr(known, "__name__", str(known)))


def describe(name: str, point: EntryPoint, load: Callable[[str], Any]) -> Installed:
    package = point.dist.name if point.dist else "?"
    try:
        target = load(name)
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything while it is imported
        problem = str(error) or type(error).__name__
        return Installed(name, package, problem=problem)
    return Installed(
        name,
        package,
        inspect.getdoc(target) or "",
        options(target) if isinstance(target, type) else (),
    )


def describe_lookup(name: str, point: EntryPoint) -> Installed:
    found = describe(name, point, load_lookup)
    if found.problem is None and issubclass(target := load_lookup(name), Handler):
        # The class docstring describes the handler.
        found = dataclasses.replace(found, help=inspect.getdoc(target.name_of) or "")
    return found


def is_same(handler: EntryPoint | None, knowing: EntryPoint) -> bool:
    """Return whether a lookup is the same class as the handler of its name."""
    return handler is not None and handler.value == knowing.value
