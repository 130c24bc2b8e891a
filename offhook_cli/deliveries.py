"""`offhook deliveries`: list the attempts at deliveries that are on record."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
import typer

from offhook.connection import opened
from offhook.errors import ConfigError, not_configured
from offhook.inbox.record import AttemptsPage, Record, WantedAttempts
from offhook.inbox.record_part import AttemptOutcome, RecordedAttempt
from offhook.settings import Settings
from offhook_cli import completion
from offhook_cli.live import ms
from offhook_cli.options import (
    Json,
    Limit,
    Tenant,
    call_names,
    full_name,
    moment,
    settings_of,
    since_option,
)
from offhook_cli.screen import local, note, print_json, print_table


def deliveries(
    handler: Annotated[
        str | None,
        typer.Option(
            help="Only deliveries to this handler.",
            metavar="NAME",
            autocompletion=completion.handlers,
        ),
    ] = None,
    outcome: Annotated[
        list[AttemptOutcome] | None,
        typer.Option(
            help=f"Only attempts with this outcome: {', '.join(AttemptOutcome)}. May be repeated.",
            metavar="OUTCOME",
        ),
    ] = None,
    call: Annotated[
        str | None,
        typer.Option(
            help="Only deliveries of this call, by its id: PBX/CALLID or CALLID.",
            metavar="ID",
            autocompletion=completion.calls,
        ),
    ] = None,
    since: Annotated[datetime | None, since_option("Only attempts that ended")] = None,
    until: Annotated[
        datetime | None,
        typer.Option(
            parser=moment,
            metavar="TIME",
            show_default=False,
            help="Only attempts that ended before this time, written as for --since.",
        ),
    ] = None,
    limit: Limit = 50,
    before: Annotated[
        str | None,
        typer.Option(
            help="Continue from this cursor, printed by the previous page.", metavar="CURSOR"
        ),
    ] = None,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """List attempts at deliveries, newest first: when, how long, and the answer.

    Outcomes: delivered; failed (to be retried); circuit-open (failed while the
    target is down, which uses up no attempt); dead (a dead letter). The record
    is kept as long as events; with record = "failures" it leaves out events
    that were delivered at the first attempt.

    \b
    Examples:
      offhook deliveries
      offhook deliveries --handler crm --since 2h
      offhook deliveries --outcome failed --outcome dead --until 2026-05-01T14:00
      offhook deliveries --call main/1795289400.101 --json
    """
    settings = settings_of(tenant)
    if handler is not None:
        handler = full_name(settings, handler)
    wanted = WantedAttempts(handler, frozenset(outcome or ()), call, since, until)
    page = asyncio.run(_page(settings, wanted, limit, before))
    if as_json:
        print_json([attempt.as_dict() for attempt in page.attempts])
    elif page.attempts:
        print_attempts(page.attempts)
    elif page.following is None:
        note("No deliveries match.")
    if page.searched is not None:
        note(f"Searched back to {local(page.searched)}. To go on: --before {page.following}")
    elif page.following is not None:
        note(f"The next ones: --before {page.following}")


async def _page(
    settings: Settings, wanted: WantedAttempts, most: int, before: str | None
) -> AttemptsPage:
    async with opened(settings) as (inbox, _):
        if wanted.handler is not None:
            known = settings.handlers.keys() | await inbox.known(settings.tenant)
            if wanted.handler not in known:
                raise ConfigError(not_configured("handler", wanted.handler, sorted(known)))
        page = AttemptsPage([], None)
        for call in call_names(settings, wanted.call) if wanted.call else [None]:
            named = msgspec.structs.replace(wanted, call=call)
            try:
                page = await Record(inbox).page(named, most, before, settings.tenant)
            except ValueError as error:
                raise ConfigError(f"--before: {error}") from error
            if page.attempts:
                break
        return page


def print_attempts(attempts: Sequence[RecordedAttempt], *, with_call: bool = True) -> None:
    """Print a table of attempts."""
    columns = ["began", "handler", "event", "extension"]
    columns += ["call"] * with_call + ["attempt", "took", "outcome", "answer"]
    print_table(
        *columns,
        rows=[
            [
                local(each.began),
                each.handler,
                each.type,
                each.extension,
                *[each.call] * with_call,
                str(each.attempt),
                ms(each.took),
                each.outcome,
                each.answer,
            ]
            for each in attempts
        ],
        right=("attempt", "took"),
    )
