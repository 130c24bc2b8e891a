"""`offhook calls proof`: for each day, the PBX's records beside the calls kept here."""

import asyncio
from typing import Annotated

import msgspec
import typer

from offhook.connection import opened
from offhook.operations.proof import KEPT_DAYS, DayProof, days_of
from offhook.provisioning.api import among
from offhook_cli.options import Json, PbxName, Tenant, settings_of
from offhook_cli.screen import local, note, print_json, print_table


def proof(
    days: Annotated[
        int, typer.Option(min=1, max=KEPT_DAYS, metavar="N", help="Number of days to show.")
    ] = 14,
    pbx: PbxName = None,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Compare the calls of each day on the PBX with those here.

    The figures come from the hourly comparison. `here`: calls reported by
    callbacks. `recovered`: calls found only in the PBX's records. `closed`:
    calls whose end was found only in the records.

    \b
    Examples:
      offhook calls proof
      offhook calls proof --days 30 --json
    """
    settings = settings_of(tenant)
    names = among(settings, pbx)

    async def read() -> dict[str, list[DayProof]]:
        async with opened(settings) as (inbox, _):
            return {name: await days_of(inbox.redis, name, tenant, days) for name in names}

    found = asyncio.run(read())
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    rows = [
        [
            name,
            each.day.isoformat(),
            *map(str, (each.records, each.here, len(each.recovered), len(each.closed))),
            local(each.compared),
        ]
        for name, its in found.items()
        for each in its
    ]
    if not rows:
        note("Nothing was compared yet: this needs the PBX's API, and `offhook work` running.")
        return
    counts = ("on the PBX", "here", "recovered", "closed")
    print_table("PBX", "day", *counts, "compared", rows=rows, right=counts)
