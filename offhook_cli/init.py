"""`offhook init`: a configuration and a secret to begin with."""

import json
import os
import secrets
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from offhook.settings import DEFAULT_FILE, HandlerSettings, LookupSettings, PbxSettings, Settings
from offhook_cli.screen import fail

SECRET_FILE = "offhook.secret"  # noqa: S105 - a file's name

_TOP = f"""\
# The configuration of Offhook. A setting that is commented out has its default.
# An environment variable wins over it: OFFHOOK_PUBLIC_URL over public_url.
# Any setting NAME can be read from a file, by NAME_file; paths are relative to this file.

# {Settings.model_fields["secret"].description}
secret_file = "{SECRET_FILE}"
"""

_PBX = """\
# The PBXs, one table each, under a name of your choice: it is a part of the callback URLs.
# `offhook setup EXTENSION` registers the URLs of an extension there.

#[pbx.main]
"""

_LOOKUPS = """\
# Who knows the name of who is calling: one table each, asked in this order; the first name that is
# known is in the event when handlers get it. `offhook lookup NUMBER` tries them.

#[lookups.contacts]
#use = "csv"
"""

_LOOKUP_OPTIONS = """\
#[lookups.contacts.options]
#path = "contacts.csv"

#[lookups.crm]
#use = "hubspot"
#[lookups.crm.options]
#token = "the token that HubSpot shows"
"""

_HANDLERS = """\
# The handlers: one table each, under a name of your choice. Each gets every event, in order, and
# none waits for another. `offhook handlers` lists what is installed and what is configured here,
# `offhook handlers show NAME` the options of one.

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

# What to show for settings whose default is to have none.
_VALUES: dict[str, Any] = {
    "events": ["raw", "calls"],
    "extensions": ["0003*210", "0004*"],
    "direction": "in",
    "pbx": ["main"],
    "client_id": "the key that the PBX shows",
    "host": "https://pbx.example.com",
    "ca_file": "pbx-ca.pem",
    "lifetime": 300,
    "max_events": 1_000_000,
    "region": "GB",
    "zone": "Europe/Bucharest",
    "daily_summary": "18:00",
}


def init(
    directory: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="Where to write them.", file_okay=False, show_default="here"
        ),
    ] = Path(),
) -> None:
    """Write a configuration and a secret to begin with.

    offhook.toml holds every setting with its meaning and its default, and
    one handler that prints the events. offhook.secret signs the callback
    URLs. Nothing that is there already is overwritten.

    \b
    Examples:
      offhook init
      offhook init --directory /etc/offhook
    """
    config, secret = directory / DEFAULT_FILE, directory / SECRET_FILE
    for path in (config, secret):
        if path.exists():
            fail(f"{path} is there already; nothing was written.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(secret, f"{secrets.token_urlsafe(48)}\n", mode=0o600)
        _write(config, configuration(), mode=0o644)
    except OSError as error:
        fail(f"{error.filename} cannot be written: {error.strerror}.")
    typer.echo(_what_now(config, secret))


def configuration() -> str:
    """The text of a new `offhook.toml`: `# ` begins a comment, `#` a setting to uncomment."""
    settings = [
        _setting(name, field)
        for name, field in Settings.model_fields.items()
        if name not in ("secret", "handlers", "lookups", "pbx")
    ]
    return "\n".join(
        [
            _TOP,
            *settings,
            _PBX + "".join(_pbx()),
            _HANDLERS + "".join(_handler()),
            _EXAMPLES,
            _LOOKUPS + "".join(_of_table(LookupSettings)) + _LOOKUP_OPTIONS,
        ]
    )


def _pbx() -> Iterator[str]:
    """One that takes the key and the secret of an app; the other way in stands in a comment."""
    for name, field in PbxSettings.model_fields.items():
        if name == "token":
            yield f'# {field.description}: token_file = "pbx-token"\n'
        else:
            yield _setting(name, field)


def _handler() -> Iterator[str]:
    """One handler that is on, with all that can be set for any."""
    yield '[handlers.screen]\nuse = "console"\n'
    yield from _of_table(HandlerSettings)


def _of_table(table: type[HandlerSettings | LookupSettings]) -> Iterator[str]:
    for name, field in table.model_fields.items():
        if name not in ("use", "options"):
            yield _setting(name, field)


def _setting(name: str, field: FieldInfo) -> str:
    """A setting as comments: its meaning, and the setting with its default, or with an example."""
    if "SecretStr" in str(field.annotation):
        return f'{_comment(field)}#{name}_file = "offhook.{name.replace("_", "-")}"\n'
    value = _VALUES[name] if field.default is None else field.default
    return f"{_comment(field)}#{name} = {json.dumps(value, default=str)}\n"


def _comment(field: FieldInfo) -> str:
    lines = textwrap.wrap(str(field.description), 98, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines)


def _write(path: Path, text: str, mode: int) -> None:
    """Write a new file, for whose content its mode counts from the first byte."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)


def _what_now(config: Path, secret: Path) -> str:
    here = config.parent == Path()
    export = "" if here else f"\n  export OFFHOOK_CONFIG={config.resolve()}"
    return f"""\
Wrote {config}: the settings, and a handler that prints every event.
Wrote {secret}: it signs the callback URLs. Keep it, and keep it to yourself.

Next, with a Redis or Valkey server running ({Settings.model_fields["redis_url"].default}):
{export}
  offhook serve       takes callbacks
  offhook work        delivers events, in a second terminal
  offhook simulate    places simulated calls, in a third

Then set public_url and [pbx.main] in {config.name}, and `offhook setup EXTENSION` has the PBX
call here. (To register the URLs on the PBX by hand: `offhook url`.)"""
