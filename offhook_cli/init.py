"""`offhook init`: write a first configuration and a secret."""

import json
import os
import secrets
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from offhook.settings import (
    DEFAULT_FILE,
    ConsoleSettings,
    HandlerSettings,
    LookupSettings,
    PbxSettings,
    Settings,
    TenantLimits,
    TenantSettings,
)
from offhook_cli.screen import fail

SECRET_FILE = "offhook.secret"  # noqa: S105 - a file's name

_TOP = f"""\
# Configuration of Offhook. Settings that are commented out show their defaults, or an example.
# Environment variables override this file: OFFHOOK_PUBLIC_URL overrides public_url.
# NAME_file reads any setting NAME from a file. Paths are relative to this file.

# {Settings.model_fields["secret"].description}
secret_file = "{SECRET_FILE}"
"""

_PBX = """\
# PBXs: one table each. The name is yours to choose and becomes part of the callback URLs.
# `offhook setup EXTENSION` registers the callback URLs of an extension on the PBX.

#[pbx.main]
"""

_CONSOLE = """\
# The console shows calls, handlers and dead letters: `offhook console`. `offhook console user NAME`
# prints the table of a user.

#[console]
"""

_LOOKUPS = """\
# Lookups find the caller's name: one table each, asked in this order. Handlers get the event with
# the first name found. `offhook lookup NUMBER` tries them.

#[lookups.contacts]
#use = "csv"
"""

_LOOKUP_OPTIONS = """\
#[lookups.contacts.options]
#path = "contacts.csv"

#[lookups.crm]
#use = "hubspot"
#[lookups.crm.options]
#token = "the token from HubSpot"
"""

_HANDLERS = """\
# Handlers: one table each, named as you like. Each gets every event, in order, and none waits for
# another. `offhook handlers` lists the installed and configured ones, `offhook handlers show NAME`
# the options of one.

"""

_EXAMPLES = """\
#[handlers.crm]
#use = "webhook"
#[handlers.crm.options]
#url = "https://crm.example.com/calls"

#[handlers.log]
#use = "sql"
#[handlers.log.options]
#url = "sqlite:///calls.db"

#[handlers.missed]
#use = "notify"
#[handlers.missed.options]
#urls = ["mailto://user:password@example.com"]
"""

_TENANTS = """\
# Tenants: organizations with extensions, handlers and lookups of their own; one table each, or a
# file each, tenants/NAME.toml. docs/tenants.md explains them.

#[tenants.acme]
"""

_TENANT_TABLES = """\
#[tenants.acme.handlers.crm]
#use = "webhook"
#[tenants.acme.handlers.crm.options]
#url = "https://crm.acme.example/calls"

#[tenants.acme.limits]
"""

# Examples for settings that have no default.
_VALUES: dict[str, Any] = {
    "events": ["raw", "calls"],
    "extensions": ["0003*210", "0004*"],
    "tenants": "all",
    "keep_days": 30,
    "direction": "in",
    "pop_url": "https://crm.example.com/search?phone={number}",
    "dead_letter_days": 30,
    "quarantine_days": 30,
    "pbx": ["main"],
    "encoding": "cp1251",
    "client_id": "the key from the PBX",
    "host": "https://pbx.example.com",
    "ca_file": "pbx-ca.pem",
    "lifetime": 300,
    "max_events": 1_000_000,
    "replicas": 1,
    "processes": 2,
    "rq_url": "redis://127.0.0.1:6380/0",
    "allowed_addresses": ["203.0.113.9", "2001:db8::/64"],
    "region": "GB",
    "zone": "Europe/Bucharest",
    "traces_url": "http://127.0.0.1:4318",
    "daily_summary": "18:00",
}


def init(
    directory: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="The folder to write to.",
            file_okay=False,
            show_default="current folder",
        ),
    ] = Path(),
) -> None:
    """Write a first configuration and a secret.

    offhook.toml has every setting, explained, with its default, and one
    handler that prints the events. offhook.secret signs the callback URLs.
    Existing files are never overwritten.

    \b
    Examples:
      offhook init
      offhook init --directory /etc/offhook
    """
    config, secret = directory / DEFAULT_FILE, directory / SECRET_FILE
    for path in (config, secret):
        if path.exists():
            fail(f"{path} already exists; nothing was written.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(secret, f"{secrets.token_urlsafe(48)}\n", mode=0o600)
        _write(config, configuration(), mode=0o600)
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}")
    typer.echo(_what_now(config, secret))


def configuration() -> str:
    """Return a new `offhook.toml`: `# ` begins a comment, `#` a setting to uncomment."""
    settings = [
        _setting(name, field)
        for name, field in Settings.model_fields.items()
        if name not in ("secret", "handlers", "lookups", "pbx", "tenants", "console")
    ]
    return "\n".join(
        [
            _TOP,
            *settings,
            _PBX + "".join(_pbx()),
            _CONSOLE + "".join(_of_table(ConsoleSettings)),
            _HANDLERS + "".join(_handler()),
            _EXAMPLES,
            _LOOKUPS + "".join(_of_table(LookupSettings)) + _LOOKUP_OPTIONS,
            _TENANTS + "".join(_tenant()),
        ]
    )


def _pbx() -> Iterator[str]:
    """Yield a PBX with the credentials of an app; the alternative, a token, is a comment."""
    for name, field in PbxSettings.model_fields.items():
        if name == "token":
            yield f'# {field.description}: token_file = "pbx-token"\n'
        else:
            yield _setting(name, field)


def _tenant() -> Iterator[str]:
    """Yield a tenant, with every setting that is no table of plugins or PBXs."""
    for name, field in TenantSettings.model_fields.items():
        if name == "extensions":
            yield f'{_comment(field)}#extensions = ["main/0003**"]\n'
        elif name not in ("handlers", "lookups", "pbx", "limits", "users"):
            yield _setting(name, field)
    yield f"\n{_TENANT_TABLES}"
    for name, field in TenantLimits.model_fields.items():
        yield _setting(name, field)


def _handler() -> Iterator[str]:
    """Yield one enabled handler, with every setting that handlers share."""
    yield '[handlers.screen]\nuse = "console"\n'
    yield from _of_table(HandlerSettings)


def _of_table(table: type[HandlerSettings | LookupSettings | ConsoleSettings]) -> Iterator[str]:
    for name, field in table.model_fields.items():
        if name not in ("use", "options", "users", "oidc"):
            yield _setting(name, field)


def _setting(name: str, field: FieldInfo) -> str:
    """Format a setting as comments: its meaning, and its default or an example."""
    if "SecretStr" in str(field.annotation):
        return f'{_comment(field)}#{name}_file = "offhook.{name.replace("_", "-")}"\n'
    value = _VALUES[name] if field.default is None else field.default
    return f"{_comment(field)}#{name} = {json.dumps(value, default=str)}\n"


def _comment(field: FieldInfo) -> str:
    lines = textwrap.wrap(str(field.description), 98, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines)


def _write(path: Path, text: str, mode: int) -> None:
    """Write a new file that has its mode before it has content."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)


def _what_now(config: Path, secret: Path) -> str:
    here = config.parent == Path()
    export = "" if here else f"\n  export OFFHOOK_CONFIG={config.resolve()}"
    return f"""\
Wrote {config}: all settings, and a handler that prints every event.
Wrote {secret}: the secret that signs the callback URLs. Back it up and keep it private.

To try it, with a built-in Valkey server and a sandbox PBX:
{export}
  offhook dev

To run it for real, with a Redis or Valkey server ({Settings.model_fields["redis_url"].default}):

  offhook serve       receive callbacks
  offhook work        deliver events, in a second terminal
  offhook simulate    place simulated calls, in a third

`offhook reload` applies a change of {config.name}. While you add or write handlers, run
`offhook work --reload`: it restarts the workers after every change.

Then set public_url and [pbx.main] in {config.name}, and register the callback URLs on the PBX with
`offhook setup EXTENSION`. (`offhook url` prints them, to register by hand.)"""
