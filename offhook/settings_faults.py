"""The types of single settings, and sentences for the operator about what is wrong with them."""

import os
import re
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from offhook.errors import ConfigError
from offhook.event import GROUPS, EventType
from offhook.redis_url import check_url

# pydantic's fault types in the operator's words; {...} is filled in from the fault's context.
_FAULTS = {
    "missing": "is not set, and must be",
    "extra_forbidden": "there is no such setting",
    "unexpected_keyword_argument": "there is no such option",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be {le:g} or less",
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
    "dict_type": "must be a table",
    "model_type": "must be a table",
}


def what_is_wrong(fault: ErrorDetails) -> str:
    """Describe a fault that pydantic found, without the setting's name."""
    if fault["type"] in _FAULTS:
        return _FAULTS[fault["type"]].format(**fault.get("ctx", {}))
    return fault["msg"].removeprefix("Value error, ")


def config_error(error: ValueError, path: Path) -> ConfigError:
    """What is wrong with the configuration at `path`: every fault, with the setting's name."""
    if isinstance(error, ValidationError):
        return ConfigError([_sentence(fault, path) for fault in error.errors(include_url=False)])
    return ConfigError(f"{path}: {error}")  # it is not TOML


def _sentence(fault: ErrorDetails, path: Path) -> str:
    name = ".".join(str(part) for part in fault["loc"] if part != "[key]")
    if fault["type"] == "missing" and name == "secret":
        where = "" if path.exists() else f", and there is no {path} in {Path.cwd()}"
        return (
            f"secret: is not set{where}; without it anyone could send events. "
            "Name your configuration in OFFHOOK_CONFIG, let `offhook init` write one, "
            "or set OFFHOOK_SECRET or OFFHOOK_SECRET_FILE"
        )
    message = what_is_wrong(fault)
    return f"{name}: {message}" if name else message


def check_file(path: Path) -> None:
    """Check that the configuration file can be read, or is missing and not asked for.

    The environment alone may hold a valid configuration, so a missing file would go unnoticed and
    Offhook would run without handlers.

    Raises:
        ConfigError: `OFFHOOK_CONFIG` names a missing file, or the file cannot be read.
    """
    try:
        path.open("rb").close()
    except FileNotFoundError as error:
        if os.environ.get("OFFHOOK_CONFIG"):
            raise ConfigError(
                f"OFFHOOK_CONFIG: there is no file {path}; correct the path, let `offhook init` "
                "write one, or leave it empty to configure by environment variables alone"
            ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def like(pattern: str, description: str) -> AfterValidator:
    """Accept only texts that match the pattern."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {description}")
        return value

    return AfterValidator(check)


def _long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < 32:
        raise ValueError("is shorter than 32 characters; `offhook init` makes a good one")
    return value


def _without_groups(value: Any) -> Any:
    """Replace each group of event types by its members."""
    if not isinstance(value, list | tuple | set | frozenset):
        return value  # pydantic reports it
    if unknown := [name for name in value if name not in {*GROUPS, *EventType}]:
        raise ValueError(
            f"there is no event type {', '.join(map(repr, unknown))}, only {', '.join(EventType)}, "
            f"and the groups {', '.join(GROUPS)}"
        )
    return frozenset(each for name in value for each in GROUPS.get(name, (name,)))


def _redis_url(value: str) -> str:
    if not value.startswith(("redis://", "rediss://", "unix://", "sentinel://", "sentinels://")):
        raise ValueError(
            "must begin with redis://, rediss://, unix://, sentinel:// or sentinels://"
        )
    try:
        check_url(value)
    except ValueError:
        # Its own message may contain a part of the password.
        raise ValueError("is not a valid Redis URL; is the password percent-encoded?") from None
    return value


def _zone(value: str) -> str:
    try:
        if value != "UTC":  # which needs no database of time zones
            ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            "is not a time zone such as Europe/Berlin, or this machine has no time zone database "
            "(Debian: apt install tzdata)"
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


Encoding = Annotated[str, AfterValidator(_encoding)]
EventTypes = Annotated[frozenset[EventType], BeforeValidator(_without_groups)]
PluginName = Annotated[
    str, like(r"[a-z][a-z0-9_-]{0,39}", "named with lower-case letters, digits, - and _")
]
PbxName = Annotated[
    str, like(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", "named with letters, digits, - and _")
]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
Secret = Annotated[SecretStr, AfterValidator(_long_enough)]
Zone = Annotated[str, AfterValidator(_zone)]
