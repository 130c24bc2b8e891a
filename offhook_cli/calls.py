"""`offhook calls`: list calls, newest first."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Annotated

import typer

from offhook.call import Call, Outcome, Party
from offhook.calls import summarize
from offhook.connection import opened
from offhook.errors import ConfigError
from offhook.inbox.call_store import Calls
from offhook.settings import load_settings
from offhook_cli import completion
from offhook_cli.options import Json, moment, since_option
from offhook_cli.reconcile import reconcile
from offhook_cli.screen import counted, local, note, print_json, print_table, progress

calls = typer.Typer(add_completion=False, rich_markup_mode=None)
calls.command()(reconcile)


@calls.callback(invoke_without_command=True)
def _calls(
    context: typer.Context,
    number: Annotated[
        str | None,
        typer.Option(
            help="Only calls from or to this number; its last digits are enough.", metavar="NUMBER"
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
        datetime | None,
        typer.Option(
            parser=moment,
            metavar="TIME",
            show_default=False,
            help="Only calls that began before this time, written as for --since.",
        ),
    ] = None,
    most: Annotated[
        int, typer.Option("--most", "-n", min=1, metavar="N", help="Maximum number of calls.")
    ] = 50,
    as_json: Json = False,
) -> None:
    """List calls, newest first: who called whom, who answered, how it ended.

    Calls are kept as long as events (keep_days). `offhook call ID` shows one
    call, `offhook calls reconcile` finds calls whose callbacks were lost.

    \b
    Examples:
      offhook calls
      offhook calls --outcome missed --since 8h
      offhook calls --number 7700900168
      offhook calls --live --extension '0003*210'
      offhook calls --since 7d --before 2026-05-01T14:00 --most 200
    """
    if context.invoked_subcommand:
        return
    if number is not None and not _digits(number):
        raise ConfigError(f"--number: {number!r} contains no digit")
    settings = load_settings()
    now = datetime.now(UTC)
    began = since or now - timedelta(days=1)

    async def find(advance: Callable[[float], None]) -> list[Call]:
        found: list[Call] = []
        async with opened(settings) as (inbox, _):
            async for kept in Calls(inbox).since(began):
                call = summarize(kept.state, settings.region)
                advance((now - call.started) / (now - began))
                if (
                    (before is None or call.started < before)
                    and (not live or call.closed_by is None)
                    and outcome in (None, call.outcome)
                    and (extension is None or extension in call.extensions)
                    and (number is None or _has(call, number))
                ):
                    found.append(call)
                    if len(found) > most:
                        break
        return found

    with progress("Reading calls", 1.0) as advance:
        found = asyncio.run(find(advance))
    shown = found[:most]
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
    if len(found) > most:
        note(
            f"More than {counted(most, 'call')} match. "
            f"The next ones: --before {shown[-1].started.isoformat()}"
        )


def _has(call: Call, number: str) -> bool:
    """Return whether a number of either party ends with these digits."""
    digits = _digits(number)
    numbers = chain.from_iterable(
        (party.number, party.e164, party.did) for party in (call.caller, call.called)
    )
    return any(each and _digits(each).endswith(digits) for each in numbers)


def _digits(number: str) -> str:
    return "".join(filter(str.isdigit, number)).lstrip("0")


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
