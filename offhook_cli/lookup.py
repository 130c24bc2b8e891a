"""`offhook lookup`: ask every configured lookup for the name of a number."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer

from offhook.call import Party
from offhook.errors import DeliveryError
from offhook.http import Http
from offhook.phone_number import Number
from offhook.plugins import PluggedLookup, plug_lookup
from offhook.settings import config_path, table_of
from offhook.testing import sample_event
from offhook_cli.options import (
    Json,
    Tenant,
    full_name,
    settings_of,
)
from offhook_cli.screen import fail, print_json, print_table, progress


@dataclasses.dataclass(frozen=True)
class LookupResult:
    """What one lookup found. `took` is in seconds."""

    lookup: str
    use: str
    name: str | None
    error: str | None
    took: float


def lookup(
    number: Annotated[
        str, typer.Argument(help="An external number, as the PBX sends it.", metavar="NUMBER")
    ],
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Ask every lookup for the name of a number.

    Bypasses the cache. Events get the first name found. Exits with 1 if a
    lookup fails.

    \b
    Examples:
      offhook lookup +442079460100
      offhook lookup '020 7946 0100' --json
    """
    settings = settings_of(tenant)
    if not settings.lookups:
        table = table_of("lookups", full_name(settings, "NAME"))
        fail(f"no lookup is configured: add a [{table}] table to {config_path()}")
    asked = Number.read(number, settings.region)
    if asked.is_nobodys:
        fail(f"{number} is not an external number; lookups are not asked about it")
    lookups = [plug_lookup(name, table) for name, table in settings.lookups.items()]
    with progress("Asking lookups", len(lookups)) as advance:
        answers = asyncio.run(_ask(lookups, asked, advance))
    name = next((each.name for each in answers if each.name), None)
    if as_json:
        print_json(
            {
                "number": asked.e164 or number,
                "name": name,
                "lookups": [dataclasses.asdict(each) for each in answers],
            }
        )
    else:
        rows = [
            [each.lookup, each.use, _said(each), f"{1000 * each.took:.1f} ms"] for each in answers
        ]
        print_table("lookup", "use", "name", "took", rows=rows, right=("took",))
        if asked.e164 is None:
            typer.echo("The number has no country: set `region`, or write it with a +.")
    if any(each.error for each in answers):
        raise typer.Exit(1)


async def _ask(
    lookups: Sequence[PluggedLookup], number: Number, advance: Callable[[float], None]
) -> list[LookupResult]:
    event = sample_event(caller=Party(number=number.text))
    threads = ThreadPoolExecutor(1, "lookup")
    answers = []
    async with Http() as http:
        for done, each in enumerate(lookups):
            advance(done)
            name, why, began = None, None, time.perf_counter()
            try:
                name = await each.ask(number, event, http=http, threads=threads)
            except DeliveryError as error:
                why = str(error)
            except Exception as error:  # noqa: BLE001 - a lookup may raise anything
                why = f"{type(error).__name__}: {error}"
            took = time.perf_counter() - began
            answers.append(LookupResult(each.name, each.policy.use, name, why, took))
    threads.shutdown(wait=False)  # one that hangs cannot be stopped
    return answers


def _said(result: LookupResult) -> str:
    return f"failed: {result.error}" if result.error else result.name or "-"
