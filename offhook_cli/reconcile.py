"""`offhook calls reconcile`: compare the PBX's call records with the calls kept here."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from offhook.connection import opened
from offhook.errors import InboxUnavailable, NotYet
from offhook.provisioning.api import among, open_api, sentence
from offhook.settings import Settings, load_settings
from offhook_cli import completion
from offhook_cli.options import Json, Tenant, settings_of, since_option
from offhook_cli.pbx_api import warn_insecure
from offhook_cli.screen import counted, fail, local, note, print_json, print_table, progress
from unifiedapi.errors import UnifiedApiError
from workers.reconcile.reconciliation import Reconciled, Reconciliation


def reconcile(
    since: Annotated[
        datetime | None,
        since_option("Only calls that began", "1d"),
    ] = None,
    pbx: Annotated[
        str | None,
        typer.Option(
            "--pbx",
            help="Only this PBX.",
            metavar="NAME",
            show_default="all with API access",
            autocompletion=completion.pbxs,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the changes without making them."),
    ] = False,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Compare the PBX's call records with the calls kept here.

    Closes calls whose hangup was lost and recovers calls whose callbacks were
    all lost. Handlers get an event for each, once. The workers do the same
    every hour. Covers extensions that were set up, and records older than 10
    minutes, since younger calls may still send callbacks.

    \b
    Examples:
      offhook calls reconcile --since 2d --dry-run
      offhook calls reconcile --since 2026-05-01 --pbx main
    """
    settings = settings_of(tenant)
    began = since or datetime.now(UTC) - timedelta(days=1)
    names = among(settings, pbx)
    if pbx is None:
        names = [name for name in names if settings.pbx[name].host is not None] or names
    done = asyncio.run(_done(load_settings(), tenant, names, began, dry_run=dry_run))
    if as_json:
        print_json([_as_dict(each) for each in done])
        return
    if rows := [row for each in done for row in _rows(each, dry_run=dry_run)]:
        print_table("call", "began", "from", "to", "", rows=rows)
    for each in done:
        if each.since > began + timedelta(seconds=1):
            note(f"Calls are kept for keep_days: compared only since {local(each.since)}.")
        typer.echo(_sentence(each, dry_run=dry_run))


async def _done(
    settings: Settings, tenant: str, names: list[str], since: datetime, *, dry_run: bool
) -> list[Reconciled]:
    done = []
    own = settings.tenants[tenant].pbx if tenant else {}
    async with opened(settings) as (inbox, _):
        for name in names:
            warn_insecure(settings.of(tenant), name)
            try:
                async with open_api(settings.of(tenant), name) as api:
                    with progress(f"Reading the records of {name}", 1.0) as advance:
                        access = tenant if name in own else ""
                        work = Reconciliation(
                            settings, name, api, inbox, access=access, only=tenant
                        )
                        done.append(await work.since(since, dry_run=dry_run, advance=advance))
            except (UnifiedApiError, NotYet, InboxUnavailable) as error:
                fail(f"{name}: {sentence(error)}")
    return done


def _rows(done: Reconciled, *, dry_run: bool) -> list[list[str]]:
    to_be = "to be " if dry_run else ""
    closed = [
        [
            f"{done.pbx}/{call.id}",
            local(call.started),
            call.caller.number or call.caller.extension or "withheld",
            call.called.number or call.called.extension or "",
            f"{to_be}closed",
        ]
        for call in done.closed
    ]
    recovered = [
        [
            f"{done.pbx}/{record.call_id}",
            local(record.began),
            record.legs[0].source or "withheld",
            record.legs[0].destination or "",
            f"{to_be}recovered",
        ]
        for record in done.recovered
    ]
    return sorted(closed + recovered, key=lambda row: row[1])


def _sentence(done: Reconciled, *, dry_run: bool) -> str:
    would = "would be " if dry_run else ""
    return (
        f"{done.pbx}: {counted(done.records, 'call')} on the PBX, {done.here} here; "
        f"{len(done.closed)} {would}closed, {len(done.recovered)} {would}recovered."
    )


def _as_dict(done: Reconciled) -> dict[str, Any]:
    return {
        "pbx": done.pbx,
        "since": done.since,
        "until": done.until,
        "on_the_pbx": done.records,
        "here": done.here,
        "closed": [f"{done.pbx}/{call.id}" for call in done.closed],
        "recovered": [f"{done.pbx}/{record.call_id}" for record in done.recovered],
    }
