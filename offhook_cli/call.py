"""`offhook call`: show one call, from its first event to its last."""

import asyncio
from datetime import datetime
from typing import Annotated

import typer

from offhook.call import UNKNOWN, Call, Leg
from offhook.calls import summarize
from offhook.connection import opened
from offhook.event import CallEvent
from offhook.inbox.call_store import Calls, Kept
from offhook.inbox.record import Record
from offhook.inbox.record_part import RecordedAttempt
from offhook.logs import printable
from offhook.settings import Settings
from offhook_cli import completion
from offhook_cli.calls import ending, seconds, side
from offhook_cli.deliveries import print_attempts
from offhook_cli.options import Json, Tenant, call_names, settings_of
from offhook_cli.screen import fail, local, print_json


def call(
    name: Annotated[
        str,
        typer.Argument(
            help="The id that `offhook calls` shows, or only a CallID.",
            metavar="ID",
            autocompletion=completion.calls,
        ),
    ],
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Show one call: its outcome, legs and events, and how these were delivered.

    \b
    Examples:
      offhook call main/1795289400.101
      offhook call 1795289400.101 --json
    """
    settings = settings_of(tenant)
    found = asyncio.run(_find(settings, name))
    if found is None:
        fail(f"There is no call {name!r}: `offhook calls --since 7d` lists the calls of a week.")
    kept, events, attempts = found
    known = summarize(kept.state, settings.region)
    if as_json:
        print_json(
            known.as_dict()
            | {
                "events": [event.as_dict() for event in events],
                "deliveries": [attempt.as_dict() for attempt in attempts],
            }
        )
        return
    for line in (*_facts(known), "", *map(_leg, known.legs), "", *_timeline(events)):
        typer.echo(printable(line))
    if attempts:
        typer.echo()
        print_attempts(attempts, with_call=False)


async def _find(
    settings: Settings, name: str
) -> tuple[Kept, list[CallEvent], list[RecordedAttempt]] | None:
    """Find a call, its events and their deliveries by its name, or by its CallID on any PBX."""
    async with opened(settings) as (inbox, _):
        calls = Calls(inbox)
        for each in call_names(settings, name):
            kept = await calls.get(each)
            if kept is not None:
                events = await calls.events(kept)
                return kept, events, await Record(inbox).of_call(kept.name, events)
    return None


def _facts(call: Call) -> list[str]:
    facts = {
        "call": f"{call.pbx}/{call.id}",
        "direction": call.direction,
        "from": side(call.caller),
        "to": side(call.called),
        "began": local(call.started),
        "answered": f"{local(call.answered)} by {call.answered_by}" if call.answered else None,
        "ended": local(call.ended) if call.ended else None,
        "outcome": ending(call),
        "rang": seconds(call.ring_seconds),
        "talked": seconds(call.talk_seconds) if call.answered_by else None,
        "recording": call.recording,
        "closed by": call.closed_by if call.closed_by != "hangup" else None,
        "recovered": "no callback came; found in the PBX's call records"
        if call.recovered
        else None,
        "unknown": ", ".join(UNKNOWN[gap] for gap in call.gaps) or None,
    }
    return [f"{name + ':':<11} {value}" for name, value in facts.items() if value is not None]


def _leg(leg: Leg) -> str:
    def clock(moment: datetime | None) -> str:
        return f"{moment.astimezone():%H:%M:%S}" if moment else "       ?"

    answered = clock(leg.answered) if leg.answered else "       -"
    what = f"{leg.extension} {leg.kind or ''}".strip()
    return (
        f"  {what:<16} {leg.direction or '':<4} "
        f"rang {clock(leg.rang)}  answered {answered}  ended {clock(leg.ended)}  "
        f"{leg.status or ''}"
    ).rstrip()


def _timeline(events: list[CallEvent]) -> list[str]:
    return [
        f"  {event.received.astimezone():%H:%M:%S.%f}"[:-3]
        + f"  {event.type:<10} {event.extension:<10} {event.status or ''}".rstrip()
        for event in events
    ]
