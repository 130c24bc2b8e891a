"""`offhook erase`: delete what is kept of the calls of a phone number."""

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from offhook.connection import opened
from offhook.errors import ConfigError, DeliveryError
from offhook.operations import erasure
from offhook.operations.erasure import Erased
from offhook.phone_number import Number
from offhook.plugins import load_handler, with_options
from offhook.settings import Settings, config_path, load_settings, table_of
from offhook_cli.options import Json, Tenant, Yes, settings_of
from offhook_cli.screen import confirm, counted, note, print_json, progress


def erase(
    number: Annotated[
        str, typer.Argument(metavar="NUMBER", help="With its country: +442079460100.")
    ],
    tenant: Tenant = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete what is kept of the calls of a phone number, and report it.

    Deletes whole calls from the inbox with all their events, dead letters,
    refused callbacks, names from lookups, lines of `file` handlers, and rows
    of `sql` handlers: what is the operator's or, with --tenant, a tenant's.
    Calls that are not yet delivered to every handler stay: run it again
    later. Run it on every machine with a journal or with files.

    Exits with 1 if something is left.

    \b
    Examples:
      offhook erase +442079460100
      offhook erase 02079460100 --yes --json
    """
    settings = settings_of(tenant)
    person = Number.read(number, settings.region)
    if person.e164 is None:
        raise ConfigError(
            f"{number!r} has no country: write it as +442079460100, or set region in "
            f"{config_path()}"
        )
    confirm(f"Delete everything about {person.e164}? It cannot be undone.", yes=yes)
    report = _erase(settings, person)
    if as_json:
        print_json(report)
    else:
        _print(report)
    if report["left"]:
        raise typer.Exit(1)


def _erase(settings: Settings, number: Number) -> dict[str, Any]:
    erased = asyncio.run(_erase_in_redis(settings, number))
    report: dict[str, Any] = {"number": number.e164, "redis": asdict(erased), "handlers": {}}
    left = []
    if erased.waiting:
        left.append(
            f"{counted(len(erased.waiting), 'call')} in progress or not yet delivered to every "
            "handler: run it again later"
        )
    copies = []
    for name, table in settings.handlers.items():
        kind: Any = load_handler(table.use)
        if not hasattr(kind, "erase"):
            copies.append(name)
            continue
        handler: Any = with_options(kind, table.options, f"{table_of('handlers', name)}.options")
        try:
            report["handlers"][name] = handler.erase(number)
        except (DeliveryError, OSError) as error:
            left.append(f"handlers.{name}: {error}")
    if settings.tenant:  # its events may be in the tables and files of the operator, with others'
        copies += [
            name for name, table in load_settings().handlers.items() if table.gets(settings.tenant)
        ]
    report["journal"], waiting = _erase_in_journals(settings, number)
    if waiting:
        left.append(f"{counted(waiting, 'line')} of the journal: run it again when it is empty")
    return report | {"left": left, "copies": copies}


async def _erase_in_redis(settings: Settings, number: Number) -> Erased:
    with progress("Searching", 1.0) as advance:
        async with opened(settings) as (inbox, rq):
            return await erasure.erase(
                inbox, rq, load_settings(), number.is_in, advance, settings.tenant
            )


def _erase_in_journals(settings: Settings, number: Number) -> tuple[int, int]:
    """Delete damaged batches with the number; not for a tenant: a batch may have others' events.

    Returns:
        How many were deleted; and how many batches are still to be moved to the inbox.
    """
    deleted = waiting = 0
    folder, whose = settings.journal_folder, f'"{settings.tenant}"' if settings.tenant else ""
    for path in sorted(folder.glob("*.journal")):
        waiting += sum(number.is_in(line) and whose in line for line in _lines(path))
    if whose:
        return 0, waiting
    for path in sorted(folder.glob("*.damaged")):
        kept = [line for line in _lines(path) if not number.is_in(line)]
        found = sum(1 for _ in _lines(path)) - len(kept)
        if found:
            path.write_text("".join(kept), "utf-8", "surrogateescape")
            deleted += found
    return deleted, waiting


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        yield from file


def _print(report: dict[str, Any]) -> None:
    redis = report["redis"]
    typer.echo(f"Deleted of {report['number']}:")
    for what, count in (
        ("inbox", counted(redis["events"], "event")),
        ("calls", counted(redis["calls"], "call")),
        ("dead letters", counted(redis["dead_letters"], "dead letter")),
        ("quarantine", counted(redis["quarantine"], "refused callback")),
        ("remembered", counted(redis["remembered"], "name or value")),
        ("journal", counted(report["journal"], "damaged line")),
        *((name, counted(rows, "record")) for name, rows in report["handlers"].items()),
    ):
        typer.echo(f"  {what + ':':<14} {count}")
    for each in report["left"]:
        note(f"! {each}")
    if report["copies"]:
        note(f"Their targets may have copies: {', '.join(report['copies'])}.")
    note(
        "Backups have copies, and so has the server's append-only file until it is rewritten: "
        "`valkey-cli --user admin --askpass bgrewriteaof`."
    )
