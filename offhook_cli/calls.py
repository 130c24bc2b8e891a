"""`offhook calls`: list calls, newest first."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from offhook.call import Call, Outcome, Party
from offhook.calls import CallFilter, summarize
from offhook.connection import opened
from offhook.errors import ConfigError
from offhook.inbox.call_search import UnknownCursor, search
from offhook.settings import Settings
from offhook_cli import completion
from offhook_cli.options import Json, Tenant, moment, settings_of, since_option
from offhook_cli.proof import proof
from offhook_cli.reconcile import reconcile
from offhook_cli.screen import counted, local, note, print_json, print_table

calls = typer.Typer(add_completion=False, rich_markup_mode=None)
calls.command()(reconcile)
calls.command()(proof)


@calls.callback(invoke_without_command=True)
def _calls(
    context: typer.Context,
    number: Annotated[
        str | None,
        typer.Option(
            help="Only calls from or to this number, in any form; its last digits are enough.",
            metavar="NUMBER",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Only calls from a caller with this name; the first letters of a word will do.",
            metavar="NAME",
        ),
    ] = None,
    extension: Annotated[
        str | None,
        typer.Option(
            help="Only calls of this extension.",
            metavar="EXTENSION",
            autocompletion=completion.extensions,
        ),
    ] = None,
    outcome: Annotated[Outcome | None, typer.Option(help="Only calls with this outcome.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Only calls in progress.")] = False,
    since: Annotated[
        datetime | None,
        since_option("Only calls that began", "1d"),
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            show_default=False,
            help="Only calls that began before this time, written as for --since; or "
            "continue from this cursor, printed by the previous page.",
        ),
    ] = None,
    most: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="N", help="Maximum number of rows.")
    ] = 50,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """List calls, newest first: who called whom, who answered, how it ended.

    Calls are kept as long as events (keep_days). `offhook call ID` shows one
    call, `offhook calls reconcile` finds calls whose callbacks were lost.

    \b
    Examples:
      offhook calls
      offhook calls --outcome missed --since 8h
      offhook calls --number 7700900168 --since 30d
      offhook calls --name "ada byron"
      offhook calls --live --extension '0003*210'
      offhook calls --since 7d --before 2026-05-01T14:00 --limit 200
    """
    if context.invoked_subcommand:
        return
    settings = settings_of(tenant)
    cursor = before if before and before.startswith("@") else None
    try:
        wanted = CallFilter(
            number=number,
            name=name,
            extension=extension,
            outcome=outcome,
            live=live,
            since=since or datetime.now(UTC) - timedelta(days=1),
            before=moment(before) if before and not cursor else None,
            region=settings.region,
        )
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    shown, cursor = asyncio.run(_found(settings, wanted, most, cursor))
    if as_json:
        print_json([call.as_dict() for call in shown])
    elif not shown:
        note("No calls match.")
    else:
        print_table(
            *("call", "began", "", "from", "to", "answered by", "outcome", "rang", "talked"),
            rows=[_row(call) for call in shown],
            right=("rang", "talked"),
        )
    if cursor:
        note(f"More than {counted(most, 'call')} match. The next ones: --before {cursor}")


async def _found(
    settings: Settings, wanted: CallFilter, most: int, cursor: str | None
) -> tuple[list[Call], str | None]:
    """The newest calls, and the cursor of the next page."""
    found: list[Call] = []
    async with opened(settings) as (inbox, _):
        while True:
            try:
                page = await search(inbox, wanted, most - len(found), cursor, settings.tenant)
            except UnknownCursor as error:
                raise ConfigError(f"--before: {error}") from error
            found += [summarize(kept.state, settings.region) for kept in page.calls]
            cursor = page.cursor
            if not cursor or len(found) == most:
                return found, cursor


def _row(call: Call) -> list[str]:
    return [
        f"{call.pbx}/{call.id}",
        local(call.started),
        call.direction,
        side(call.caller),
        side(call.called),
        call.answered_by or "",
        ending(call),
        seconds(call.ring_seconds),
        seconds(call.talk_seconds) if call.answered_by else "",
    ]


def side(party: Party) -> str:
    """Format a party: name and number, or extension."""
    number = party.e164 or party.number or party.did or party.extension or "withheld"
    return f"{party.name} ({number})" if party.name else number


def ending(call: Call) -> str:
    """Format the outcome; `?` when the call is incomplete."""
    if call.outcome is None:
        return "talking" if call.answered_by else "ringing"
    return f"{call.outcome}{'' if call.complete else ' ?'}"


def seconds(duration: float | None) -> str:
    """Format a duration: `0:07`, `1:02:03`."""
    if duration is None:
        return "?"
    minutes, rest = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
