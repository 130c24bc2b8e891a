"""Loads the configuration, or as much of it as is right."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from offhook.settings.config_file import config_folder, config_path
from offhook.settings.console_table import ConsoleSettings, ConsoleToken, ConsoleUser, OidcSettings
from offhook.settings.faults import check_file, config_error
from offhook.settings.installation import Settings
from offhook.settings.setting_tables import HandlerSettings, LookupSettings, PbxSettings
from offhook.settings.tenants import TenantSettings, tenant_files


def load_settings() -> Settings:
    """Read the configuration.

    Raises:
        ConfigError: every fault, each with the name of its setting.
    """
    path = config_path()
    check_file(path)
    for each in tenant_files():
        check_file(each)
    try:
        return Settings()  # type: ignore[call-arg]  # the fields come from file and environment
    except ValidationError as error:
        raise config_error(error, path, _NAMES) from error


_TABLES: dict[str, type[BaseModel]] = {
    "handlers": HandlerSettings,
    "lookups": LookupSettings,
    "pbx": PbxSettings,
    "tenants": TenantSettings,
}
_NAMES = {"": [*Settings.model_fields]} | {
    kind: [*table.model_fields] for kind, table in _TABLES.items()
}
_CONSOLE = (ConsoleSettings, ConsoleUser, ConsoleToken, OidcSettings)
_NAMES["console"] = [name for table in _CONSOLE for name in table.model_fields]

T = TypeVar("T", bound=BaseModel)


def sound_tables() -> tuple[dict[str, HandlerSettings], dict[str, LookupSettings]]:
    """The tables of handlers and lookups in the file, whatever is wrong with other settings.

    A table with a fault has only its `use` and its `options`.
    """
    try:
        content = tomllib.loads(config_path().read_text("utf-8"))
    except (OSError, ValueError):
        content = {}
    return _sound(content.get("handlers"), HandlerSettings), _sound(
        content.get("lookups"), LookupSettings
    )


def _sound(tables: Any, model: type[T]) -> dict[str, T]:
    sound = {}
    for name, table in tables.items() if isinstance(tables, dict) else ():
        try:
            sound[name] = model.model_validate(table)
        except ValidationError:
            with suppress(ValidationError, AttributeError):
                plugin = {key: table[key] for key in table.keys() & {"use", "options"}}
                sound[name] = model.model_validate(plugin)
    return sound


def configuration_files() -> Iterator[Path]:
    """Every file that the configuration is read from: `offhook.toml`, those of tenants, and those
    that settings such as `secret_file` or variables such as `OFFHOOK_SECRET_FILE` name. One may be
    missing.
    """
    for path in (config_path().absolute(), *tenant_files()):
        yield path
        with suppress(OSError, ValueError):
            yield from _named(tomllib.loads(path.read_text("utf-8")))
    for name, value in os.environ.items():
        if name.startswith("OFFHOOK_") and name.endswith("_FILE"):
            yield config_folder() / value


def _named(table: Mapping[str, Any]) -> Iterator[Path]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _named(value)
        elif key.endswith("_file") and isinstance(value, str):
            yield config_folder() / value
