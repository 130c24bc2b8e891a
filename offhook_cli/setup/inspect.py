"""The commands of `offhook setup` that change nothing: show, export, check."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from offhook.connection import opened
from offhook.extensions import Extensions, ExtensionSettings, Name
from offhook.provisioning.api import among
from offhook.provisioning.files import to_toml
from offhook.provisioning.registrar import AT_ONCE
from offhook.provisioning.self_test import reachability_problem
from offhook.settings import Settings
from offhook_cli.options import Json, PbxName, Tenant, settings_of
from offhook_cli.screen import counted, fail, note, print_json_list, print_long_table
from offhook_cli.setup.arguments import AtOnce, Numbers, check_numbers
from offhook_cli.setup.owner import Owner
from offhook_cli.setup.run import Order, Stored, check_drift, finish, site


def show(pbx: PbxName = None, tenant: Tenant = "", as_json: Json = False) -> None:
    """Show the extensions and their settings.

    \b
    Examples:
      offhook setup show
      offhook setup show --json | jq '.[] | select(.owner == null) | .extension'
    """
    found = _each(tenant, pbx)
    if as_json:
        print_json_list(
            {"pbx": name[0], "extension": name[1]} | asdict(each) for name, each in found
        )
        return
    first = next(found, None)
    if first is None:
        note("No extension is set up: use `offhook setup EXTENSION`.")
        return
    rows = (
        [
            number,
            where,
            each.label or "",
            each.owner or "",
            each.kind or "",
            "all" if each.handlers is None else ", ".join(each.handlers) or "none",
            ", ".join(each.events or ()),
            each.method,
        ]
        for (where, number), each in chain([first], found)
    )
    columns = ("PBX", "label", "owner", "kind", "handlers", "events", "method")
    print_long_table("extension", *columns, rows=rows)


def export(
    file: Annotated[
        str, typer.Argument(help="The file to write; - for standard output.", metavar="FILE")
    ],
    pbx: PbxName = None,
    tenant: Tenant = "",
) -> None:
    """Write the extensions and their settings to a file, for version control.

    The file contains no secrets. `offhook setup apply` reads it.

    \b
    Examples:
      offhook setup export extensions.toml
      offhook setup export - --pbx main
    """
    stored = dict(_each(tenant, pbx))
    if file == "-":
        sys.stdout.write(to_toml(stored))
        return
    try:
        Path(file).write_text(to_toml(stored), "utf-8")
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror}")
    note(f"Wrote {counted(len(stored), 'extension')} to {file}.")


def check(
    numbers: Numbers = None,
    pbx: PbxName = None,
    tenant: Tenant = "",
    at_once: AtOnce = AT_ONCE,
) -> None:
    """Compare the PBX with the settings, and test the callback URL. Changes nothing.

    Sends a test callback, which creates no event, to public_url. This shows
    that a receiver with this secret answers there when this machine calls; the
    PBX may be behind another firewall.

    Exits with 1 if there is a problem.

    \b
    Examples:
      offhook setup check
      offhook setup check '0003*210'
    """
    settings = settings_of(tenant)
    named = set(check_numbers(numbers))
    if pbx is not None:
        among(settings, pbx)
    problems: list[str] = []

    async def work() -> bool:
        async with site(settings, settings.pbx, at_once=at_once) as here:
            stored = {
                name: each
                for name, each in Owner.of(tenant).stored(here.stored).items()
                if pbx in (None, name[0]) and (not named or name[1] in named)
            }
            problems.extend(f"{number} is not set up" for number in named - {n for _, n in stored})
            problems.extend(_stale(settings, stored))
            right = await check_drift(
                [
                    Order(r, [here.wanted(n, each) for n, each in stored.items() if n[0] == name])
                    for name, r in here.registrars.items()
                ]
            )
        obstacle = await reachability_problem(settings)
        if obstacle is None:
            typer.echo(f"Callbacks can arrive: {settings.public_url} answers with this secret.")
        else:
            problems.append(obstacle)
        for problem in problems:
            note(f"! {problem}")
        return right and not problems

    finish(work())


def _stale(settings: Settings, stored: Stored) -> list[str]:
    """List what extensions still name although it is no longer configured."""
    pbxs = sorted({where for where, _ in stored if where not in settings.pbx})
    handlers = sorted(
        {h for each in stored.values() for h in each.handlers or () if h not in settings.handlers}
    )
    return [
        *(f"PBX {name} is not configured, but has extensions set up" for name in pbxs),
        *(f"no handler is configured as {name!r}, but extensions name it" for name in handlers),
    ]


def _each(tenant: str, pbx: str | None) -> Iterator[tuple[Name, ExtensionSettings]]:
    async def read() -> Iterator[tuple[Name, ExtensionSettings]]:
        async with opened(settings_of(tenant)) as (inbox, _):
            return await Extensions(inbox.redis).each()

    whose = Owner.of(tenant)
    found = (each for each in asyncio.run(read()) if whose.has(*each[0]))
    return ((name, each) for name, each in found if pbx in (None, name[0]))
