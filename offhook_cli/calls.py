"""`offhook calls`: the calls, newest first."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Annotated

import typer

from offhook.call import Call, Outcome, Party
from offhook.calls import summarize
from offhook.errors import ConfigError
from offhook.inbox.call_store import Calls
from offhook.settings import load_settings
from offhook_cli.moment import moment
from offhook_cli.reconcile import reconcile
from offhook_cli.screen import Json, counted, local, note, print_json, print_table
from offhook_cli.server import connected

calls = typer.Typer(add_completion=False, rich_markup_mode=None)
calls.command()(reconcile)


@calls.callback(invoke_without_command=True)
def _calls(
    context: typer.Context,
    number: Annotated[
        str | None,
        typer.Option(help="From or to this number; its last digits do.", metavar="NUMBER"),
    ] = None,
    extension: Annotated[
        str | None,
        typer.Option(help="In which this extension has a part.", metavar="EXTENSION"),
    ] = None,
    outcome: Annotated[Outcome | None, typer.Option(help="That ended so.")] = None,
    live: Annotated[bool, typer.Option("--live", help="That go on.")] = False,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=moment,
            metavar="TIME",
            show_default="1d",
            help="That began since: 2h, 3d (ago), 2026-05-01T14:00.",
        ),
    ] = None,
    most: Annotated[
        int, typer.Option("--most", "-n", min=1, metavar="N", help="At most so many.")
    ] = 50,
    as_json: Json = False,
) -> None:
    """List calls, the newest first: who called whom, who answered, how it ended.

    They are kept as long as events are (keep_days). `offhook call ID` shows
    one of them, `offhook calls reconcile` finds those that are missing.

    \b
    Examples:
      offhook calls
      offhook calls --outcome missed --since 8h
      offhook calls --number 7700900168
      offhook calls --live --extension '0003*210'
    """
    if context.invoked_subcommand:
        return
    if number is not None and not _digits(number):
        raise ConfigError(f"--number: {number!r} has no digit to look for")
    settings = load_settings()
    began = since or datetime.now(UTC) - timedelta(days=1)

    async def find() -> list[Call]:
        found: list[Call] = []
        async with connected(settings) as (inbox, _):
            async for kept in Calls(inbox).since(began):
                call = summarize(kept.state, settings.region)
                if (
                    (not live or call.closed_by is None)
                    and outcome in (None, call.outcome)
                    and (extension is None or extension in call.extensions)
                    and (number is None or _has(call, number))
                ):
                    found.append(call)
                    if len(found) > most:
                        break
        return found

    found = asyncio.run(find())
    shown = found[:most]
    if as_json:
        print_json([call.as_dict() for call in shown])
    elif not shown:
        note("No such calls.")
    else:
        print_table(
            *("call", "began", "", "from", "to", "answered by", "outcome", "rang", "talked"),
            rows=[_row(call) for call in shown],
            right=("rang", "talked"),
        )
    if len(found) > most:
        note(f"There are more than {counted(most, 'call')}: say --most, or ask for fewer.")


def _has(call: Call, number: str) -> bool:
    """Does one side of the call have a number that ends so?"""
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
    """One side of a call, by its name and number, or its extension."""
    number = party.e164 or party.number or party.did or party.extension or "withheld"
    return f"{party.name} ({number})" if party.name else number


def ending(call: Call) -> str:
    """How it ended; `?` when not all is known."""
    if call.outcome is None:
        return "talking" if call.answered_by else "ringing"
    return f"{call.outcome}{'' if call.complete else ' ?'}"


def seconds(duration: float | None) -> str:
    """`0:07`, `1:02:03`."""
    if duration is None:
        return "?"
    minutes, rest = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
