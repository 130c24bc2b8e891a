"""`offhook tenants`: list, add, show and remove tenants."""

import asyncio
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from offhook.connection import opened
from offhook.errors import ConfigError
from offhook.extensions import Extensions
from offhook.operations import tenant_removal
from offhook.operations.tenant_removal import TenantData
from offhook.provisioning.files import quoted_list
from offhook.settings import Settings, config_path, load_settings, tenants_folder
from offhook_cli import completion
from offhook_cli.options import Json, Yes, group, settings_of
from offhook_cli.screen import confirm, counted, note, print_json, print_table

tenants = group("List, add, show and remove tenants: organizations with handlers of their own.")

Name = Annotated[
    str,
    typer.Argument(help="The tenant's name.", metavar="NAME", autocompletion=completion.tenants),
]


@tenants.command("list")
def list_(as_json: Json = False) -> None:
    """List the tenants, and how much data each has.

    Also lists those that are no longer configured and still have data.

    \b
    Examples:
      offhook tenants list
      offhook tenants list --json | jq -r '.[].tenant'
    """
    settings = load_settings()
    found = asyncio.run(_found(settings))
    if as_json:
        print_json([_as_dict(settings, name, kept) for name, kept in found.items()])
    elif not found:
        note("No tenants: all extensions are the operator's.")
    else:
        columns = ("events", "calls", "dead letters", "refused")
        rows = [
            [name, _claims(settings, name), _handlers(settings, name), *_counts(kept)]
            for name, kept in found.items()
        ]
        print_table("tenant", "extensions", "handlers", *columns, rows=rows, right=columns)
        for name in found.keys() - settings.tenants.keys():
            note(f"! {name} is no longer configured: `offhook tenants remove {name}` deletes it")


@tenants.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show one tenant: its extensions, handlers, settings and data.

    \b
    Examples:
      offhook tenants show acme
    """
    its, settings = settings_of(name), load_settings()

    async def read() -> tuple[TenantData, int]:
        async with opened(settings) as (inbox, rq):
            stored = await Extensions(inbox.redis).all()
            count = sum(settings.tenant_of(*each) == name for each in stored)
            return await tenant_removal.kept(inbox, rq, name), count

    kept, set_up = asyncio.run(read())
    table = settings.tenants[name]
    facts = {
        "tenant": name,
        "extensions": table.extensions,
        "set_up": set_up,
        "handlers": {each: policy.use for each, policy in its.handlers.items()},
        "lookups": {each: policy.use for each, policy in its.lookups.items()},
        "access": list(table.pbx),
        "region": its.region,
        "zone": table.zone,
        "users": list(table.users),
        "keep_days": its.keep_days,
        "dead_letter_days": its.dead_letter_days,
        "quarantine_days": its.quarantine_days,
        "own_code": table.own_code,
        "limits": table.limits.model_dump(),
        "kept": asdict(kept),
    }
    if as_json:
        print_json(facts)
        return
    for title, value in facts.items():
        typer.echo(f"{title.replace('_', ' ') + ':':<18} {_in_words(value)}")


@tenants.command()
def add(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, - and _.")],
    extensions: Annotated[
        list[str],
        typer.Option(
            "--extensions",
            help="What belongs to it, such as main/0003**. May be repeated.",
            metavar="PBX/EXTENSION",
        ),
    ],
) -> None:
    """Write the file of a new tenant, tenants/NAME.toml, for you to complete.

    Add its handlers there, run `offhook reload`, and set up its extensions:
    `offhook setup EXTENSION --tenant NAME`.

    \b
    Examples:
      offhook tenants add acme --extensions 'main/0003**'
    """
    if name in load_settings().tenants:
        raise ConfigError(f"there is a tenant {name} already: see `offhook tenants show {name}`")
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"{name!r}: name it with lower-case letters, digits, - and _")
    path = tenants_folder() / f"{name}.toml"
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(_FILE.format(claims=quoted_list(extensions)))
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    try:
        load_settings()
    except ConfigError:
        path.unlink()
        raise
    typer.echo(f"Wrote {path}. Add its handlers, then run `offhook reload`.")


_FILE = """\
extensions = {claims}

# Its handlers, as in offhook.toml:
# [handlers.crm]
# use = "webhook"
# options.url = "https://crm.example.com/calls"
"""


@tenants.command()
def remove(
    name: Annotated[
        str,
        typer.Argument(
            help="A tenant with a file of its own, or one that is no longer configured.",
            metavar="NAME",
            autocompletion=completion.tenants,
        ),
    ],
    yes: Yes = False,
) -> None:
    """Delete a tenant: its file and all its data.

    First remove its extensions from the PBX, or their events become the
    operator's: `offhook setup --known --remove --tenant NAME`. What handlers
    have delivered to other systems stays there.

    \b
    Examples:
      offhook tenants remove acme
    """
    settings = load_settings()
    path = tenants_folder() / f"{name}.toml"
    if name in _in_main_file():
        raise ConfigError(f"first remove [tenants.{name}] from {config_path()}")
    asyncio.run(_remove(settings, name, path, yes=yes))


async def _remove(settings: Settings, name: str, path: Path, *, yes: bool) -> None:
    async with opened(settings) as (inbox, rq):
        configured = name in settings.tenants
        if not configured and name not in await tenant_removal.tenants_with_events(inbox):
            raise ConfigError(f"there is no tenant {name}: see `offhook tenants list`")
        stored = await Extensions(inbox.redis).all()
        if left := sum(settings.tenant_of(*each) == name for each in stored if configured):
            raise ConfigError(
                f"{counted(left, 'extension')} of {name} would send events to the operator: first "
                f"`offhook setup --known --remove --tenant {name}`"
            )
        kept = await tenant_removal.kept(inbox, rq, name)
        if configured:
            note(f"Deletes {path}.")
        note(
            f"Deletes {counted(kept.events, 'event')}, {counted(kept.calls, 'call')}, "
            f"{counted(kept.dead_letters, 'dead letter')}, "
            f"{counted(kept.refused, 'refused callback')}, and what its handlers and lookups "
            "remember."
        )
        confirm(f"Delete all that is kept of {name}? It cannot be undone.", yes=yes)
        if configured:
            await asyncio.to_thread(path.unlink)
        await tenant_removal.remove(inbox, rq, name)
        typer.echo(f"Deleted {name}.")
        if configured:
            note(
                "Run `offhook reload`. If `offhook tenants list` then shows "
                "events that came meanwhile, run this again."
            )


def _in_main_file() -> dict[str, Any]:
    """The tables of tenants in the configuration, without those in files of their own."""
    with suppress(FileNotFoundError):
        tables = tomllib.loads(config_path().read_text("utf-8"))
        return dict(tables.get("tenants", {}))
    return {}


async def _found(settings: Settings) -> dict[str, TenantData]:
    async with opened(settings) as (inbox, rq):
        names = settings.tenants.keys() | await tenant_removal.tenants_with_events(inbox)
        return {name: await tenant_removal.kept(inbox, rq, name) for name in sorted(names)}


def _as_dict(settings: Settings, name: str, kept: TenantData) -> dict[str, Any]:
    its = settings.tenants.get(name)
    return {
        "tenant": name,
        "configured": its is not None,
        "extensions": its.extensions if its else [],
        "handlers": list(settings.of(name).handlers),
    } | asdict(kept)


def _claims(settings: Settings, name: str) -> str:
    its = settings.tenants.get(name)
    return ", ".join(its.extensions) if its else "not configured"


def _handlers(settings: Settings, name: str) -> str:
    return str(len(settings.of(name).handlers))


def _counts(kept: TenantData) -> Iterable[str]:
    return map(str, (kept.events, kept.calls, kept.dead_letters, kept.refused))


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} ({each})" for name, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not set" if value is None else str(value)
