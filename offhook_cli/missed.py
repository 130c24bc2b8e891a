"""`offhook missed`: list callers who reached no person, and how they were reached later."""

import asyncio
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import msgspec
import typer

from offhook.calls import MissedCaller
from offhook.connection import opened
from offhook.extensions import Extensions, ExtensionSettings, Name
from offhook.inbox.missed_calls import KEPT, MissedCalls, with_claims
from offhook.settings import Settings
from offhook_cli import completion
from offhook_cli.calls import seconds, side
from offhook_cli.options import Json, Tenant, settings_of
from offhook_cli.screen import local, note, print_json, print_table


class State(StrEnum):
    """Which callers."""

    OPEN = "open"
    CLOSED = "closed"
    ALL = "all"


def missed(
    state: Annotated[
        State,
        typer.Option(
            help="Only open (not reached yet) or closed callers, or all.", metavar="STATE"
        ),
    ] = State.OPEN,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            help="Only callers of this queue or phone; may be repeated.",
            metavar="EXTENSION",
            autocompletion=completion.extensions,
        ),
    ] = None,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """List callers who have not reached a person, longest wait first.

    A caller stays open until a call with the number is answered: a colleague
    called back, or the caller got through. The list covers seven days. Callers
    who withheld their number are left out: they cannot be called back.

    \b
    Examples:
      offhook missed
      offhook missed --queue '0003*400'
      offhook missed --state closed --json
    """
    settings = settings_of(tenant)
    found, labels = asyncio.run(_found(settings, state, frozenset(queue or ())))
    if as_json:
        print_json([msgspec.to_builtins(each) for each in found])
    elif not found:
        note(f"No missed caller of the last {KEPT.days} days matches.")
    else:
        print_table(
            *("missed", "caller", "wanted", "times", "waits", "reached", "after", "talked"),
            rows=[_row(each, labels) for each in found],
            right=("times", "waits", "after", "talked"),
        )


async def _found(
    settings: Settings, state: State, queues: frozenset[str]
) -> tuple[list[MissedCaller], dict[Name, ExtensionSettings]]:
    async with opened(settings) as (inbox, _):
        calls = MissedCalls(inbox, settings.region, settings.tenant)
        await calls.load()
        found = [
            each
            for each in calls.callers()
            if (state is State.ALL or (state is State.OPEN) is (each.reached is None))
            and (not queues or each.called_one_of(queues))
        ]
        claimed = await with_claims(inbox.redis, found, settings.tenant)
        return claimed, await Extensions(inbox.redis).all()


def _row(caller: MissedCaller, labels: dict[Name, ExtensionSettings]) -> list[str]:
    reached, last = caller.reached, caller.calls[-1]

    def named(extension: str | None) -> str:
        known = labels.get((last.pbx, extension or ""))
        return (known.label if known else None) or extension or "?"

    after = (reached.at if reached else datetime.now(UTC)) - caller.since
    return [
        local(caller.since),
        side(caller.caller),
        named(caller.wanted),
        str(len(caller.calls)),
        "" if reached else seconds(after.total_seconds()),
        f"{reached.how}: {named(reached.by)}" if reached else _on_it(caller),
        seconds(after.total_seconds()) if reached else "",
        seconds(reached.talk_seconds) if reached else "",
    ]


def _on_it(caller: MissedCaller) -> str:
    if caller.current is None:
        return f"{caller.calling} is calling" if caller.calling else ""
    return "is being called" if caller.current.direction == "out" else "calls again"
