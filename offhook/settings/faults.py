"""The types of single settings, and sentences for the operator about what is wrong with them."""

import codecs
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from offhook.errors import ConfigError, did_you_mean
from offhook.event import GROUPS, EventType
from offhook.redis_servers.redis_url import SCHEMES, check_url

# pydantic's fault types in the operator's words; {...} is filled in from the fault's context.
_FAULTS = {
    "missing": "is not set, and must be",
    "extra_forbidden": "there is no such setting",
    "unexpected_keyword_argument": "there is no such option",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "string_type": "must be a text, in quotes",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list, in [ and ]",
    "frozen_set_type": "must be a list, in [ and ]",
    "tuple_type": "must be a list, in [ and ]",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "path_type": "must be a text, in quotes",
    "string_too_short": "is too short: write {min_length} characters or more",
    "string_too_long": "is too long: write {max_length} characters or fewer",
    "too_short": "has too few entries: write {min_length} or more",
    "too_long": "has too many entries: write {max_length} or fewer",
    "finite_number": "must be a number, not inf or nan",
    "string_pattern_mismatch": "must match {pattern}",
}


def what_is_wrong(fault: ErrorDetails) -> str:
    """Describe a fault that pydantic found, without the setting's name."""
    if fault["type"] in _FAULTS:
        context = fault.get("ctx", {})
        limits = {n: f"{v:.15g}" if isinstance(v, float) else v for n, v in context.items()}
        return _FAULTS[fault["type"]].format(**limits)
    return re.sub("^(Value|Assertion) error, ?", "", fault["msg"])


class Unreadable:
    """Stands for a value that cannot be read, so that every type refuses it.

    Args:
        why: a sentence without the name of the setting.
        ending: what the name in the configuration has after the setting's name.
    """

    def __init__(self, why: str, ending: str = "_file") -> None:
        self.why = f"{ending}: {why}"


def read_secret(file: Any, folder: Path) -> str | Unreadable:
    """The text in a file that a setting `NAME_file` names; a relative path starts at `folder`."""
    if not isinstance(file, str | Path) or not str(file):
        return Unreadable("must be a path, in quotes")
    try:
        return (folder / file).read_text("utf-8").strip()
    except OSError as error:
        return Unreadable(f"cannot read {folder / file}: {error.strerror}")
    except ValueError:  # neither UTF-8 nor a path
        return Unreadable(f"cannot read {folder / file}: it is not a text in UTF-8")


def config_error(
    error: ValidationError, path: Path, models: Mapping[str, Iterable[str]]
) -> ConfigError:
    """What is wrong with the configuration at `path`: every fault, with the setting's name.

    Args:
        models: the settings of each kind of table, by `handlers`, `lookups` and `pbx`; those at
            the top by an empty name.
    """
    return ConfigError(
        [
            line
            for fault in error.errors(include_url=False)
            for line in _sentence(fault, path, models).split("\n")
        ]
    )


def _sentence(fault: ErrorDetails, path: Path, models: Mapping[str, Iterable[str]]) -> str:
    loc = [str(part) for part in fault["loc"] if part != "[key]"]
    name = ".".join(loc)
    if isinstance(fault["input"], Unreadable):
        return f"{name}{fault['input'].why}"
    if fault["type"] == "missing" and name == "secret":
        where = "" if path.exists() else f", and there is no {path} in {Path.cwd()}"
        return (
            f"secret: is not set{where}; without it anyone could send events. "
            "Name your configuration in OFFHOOK_CONFIG, let `offhook init` write one, "
            "or set OFFHOOK_SECRET or OFFHOOK_SECRET_FILE"
        )
    message = what_is_wrong(fault)
    if fault["type"] == "extra_forbidden":
        message += _hint(loc, models)
    return f"{name}: {message}" if name else message


def _hint(loc: list[str], models: Mapping[str, Iterable[str]]) -> str:
    """Where an unknown setting belongs, or what it may be called."""
    table, word = (loc[0] if len(loc) > 1 else ""), loc[-1]
    if table == "tenants" and len(loc) > 3:  # a table in a tenant's
        table = loc[2]
    close = did_you_mean(word, models.get(table, ()))
    if not close and table in ("handlers", "lookups"):
        return f"; the options of a plugin belong under [{'.'.join(loc[:-1])}.options]"
    if not close and not table:
        place = next((kind for kind, names in models.items() if kind and word in names), "")
        place = "console.users" if place == "console" else place
        return f"; it belongs into a table [{place}.NAME]" if place else ""
    return close


def check_file(path: Path) -> None:
    """Check that the configuration file is TOML, or is missing and not asked for.

    The environment alone may hold a valid configuration, so a missing file would go unnoticed and
    Offhook would run without handlers.

    Raises:
        ConfigError: `OFFHOOK_CONFIG` names a missing file, or the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        if os.environ.get("OFFHOOK_CONFIG"):
            raise ConfigError(
                f"OFFHOOK_CONFIG: there is no file {path}; correct the path, let `offhook init` "
                "write one, or leave it empty to configure by environment variables alone"
            ) from error
        return
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ConfigError(f"{path}: is in UTF-16: save it as UTF-8")
        if content.startswith(codecs.BOM_UTF8):
            raise ConfigError(f"{path}: begins with a byte order mark: save it as UTF-8 without it")
        tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: is not UTF-8: save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_not_toml(error, path)) from None


def _not_toml(error: tomllib.TOMLDecodeError, path: Path) -> str:
    what, _, where = str(error).partition(" (at ")
    line = re.match(r"line (\d+)", where)
    place = f"{path}, line {line[1]}" if line else f"{path}, at its end"
    if "overwrite" in what or "twice" in what:
        return f"{place}: a setting or table appears twice: remove one"
    hint = ": write a text in quotes" if what == "Invalid value" else ""
    return f"{place}: is not TOML: {what[:1].lower()}{what[1:]}{hint}"


def like(pattern: str, description: str) -> AfterValidator:
    """Accept only texts that match the pattern."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {description}")
        return value

    return AfterValidator(check)


def _hard_to_guess(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text) < 32:
        raise ValueError("is shorter than 32 characters; `offhook init` makes a good one")
    if len(set(text)) < 8 or text in f"{text}{text}"[1:-1]:
        raise ValueError("is a repetition of a few characters; `offhook init` makes a good one")
    return value


def _without_groups(value: Any) -> Any:
    """Replace each group of event types by its members."""
    if not isinstance(value, list | tuple | set | frozenset):
        return value  # pydantic reports it
    if unknown := unknown_types(value, groups=True):
        raise ValueError(unknown)
    return frozenset(each for name in value for each in GROUPS.get(name, (name,)))


def unknown_types(names: Iterable[object], *, groups: bool = False) -> str:
    """A sentence about the names that are no event types; empty if all are.

    Args:
        groups: whether the names of groups are allowed.
    """
    known = [str(each) for each in EventType] + (list(GROUPS) if groups else [])
    unknown = [str(name) for name in names if name not in known]
    if not unknown:
        return ""
    also = f", and the groups {', '.join(GROUPS)}" if groups else ""
    return (
        f"there is no event type {', '.join(map(repr, unknown))}, only {', '.join(EventType)}"
        f"{also}{did_you_mean(unknown[0], known)}"
    )


def _redis_url(value: str) -> str:
    if value.partition("://")[0] not in SCHEMES:
        *others, last = (f"{each}://" for each in SCHEMES)
        raise ValueError(f"must begin with {', '.join(others)} or {last}")
    check_url(value)
    return value


def _zone(value: str) -> str:
    try:
        if value != "UTC":  # which needs no database of time zones
            ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = available_timezones()
        if not known:
            raise ValueError(
                "cannot be looked up: this machine has no time zone database "
                "(Debian: apt install tzdata)"
            ) from None
        raise ValueError(
            f"is not a time zone such as Europe/Berlin{did_you_mean(value, known)}"
        ) from None
    return value


def _encoding(value: str) -> str:
    plain = bytes(range(128)) + rb"\ud800"  # the last, because some of Python's codecs decode it
    try:
        if plain.decode(value) == plain.decode("ascii"):
            return value
    except (LookupError, ValueError):
        pass
    raise ValueError("must be an encoding that extends ASCII, such as cp1251 or latin-1")


# Codes that are used for a country besides its own.
_OTHER_CODES = {"UK": "GB", "EL": "GR"}


def _region(value: str) -> str:
    from phonenumbers import SUPPORTED_REGIONS

    if value in SUPPORTED_REGIONS:
        return value
    code = _OTHER_CODES.get(value.upper(), value.upper())
    right = f"{code!r}" if code in SUPPORTED_REGIONS else "its two letters (ISO 3166), such as 'GB'"
    raise ValueError(f"{value!r} is not the code of a country: write {right}")


Encoding = Annotated[str, AfterValidator(_encoding)]
EventTypes = Annotated[frozenset[EventType], BeforeValidator(_without_groups)]
PluginName = Annotated[
    str, like(r"[a-z][a-z0-9_-]{0,39}", "named with lower-case letters, digits, - and _")
]
PbxName = Annotated[
    str, like(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", "named with letters, digits, - and _")
]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
Region = Annotated[str, AfterValidator(_region)]
Secret = Annotated[SecretStr, AfterValidator(_hard_to_guess)]
Zone = Annotated[str, AfterValidator(_zone)]
