"""`offhook dead`: list, retry and discard dead letters."""

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import islice
from typing import Annotated

import typer
from redis import Redis

from offhook import queues
from offhook.connection import connect_rq, opened
from offhook.errors import ConfigError, DeliveryError, did_you_mean
from offhook.event import EventType
from offhook.logs import printable
from offhook.operations import dead_letters
from offhook.operations.dead_letters import DeadLetter, Filter
from offhook.operations.processes import running
from offhook.operations.running_files import newer_files
from offhook.settings import Settings, load_settings
from offhook_cli import completion
from offhook_cli.options import (
    MANY,
    After,
    Json,
    Limit,
    Tenant,
    Yes,
    full_name,
    group,
    id_argument,
    ids_argument,
    settings_of,
    since_option,
)
from offhook_cli.screen import confirm, counted, fail, local, note, print_json, progress

dead = group("List, retry and discard dead letters: deliveries that are out of attempts.")

Id = Annotated[str, id_argument(completion.dead_letters)]
Ids = Annotated[list[str] | None, ids_argument(completion.dead_letters)]
Handler = Annotated[
    str | None,
    typer.Option(
        help="Only dead letters of this handler.",
        metavar="NAME",
        autocompletion=completion.handlers,
    ),
]
Call = Annotated[
    str | None,
    typer.Option(
        help="Only dead letters of this call.", metavar="CALLID", autocompletion=completion.calls
    ),
]
Extension = Annotated[
    str | None,
    typer.Option(
        help="Only dead letters of this extension.",
        metavar="EXTENSION",
        autocompletion=completion.extensions,
    ),
]
Type = Annotated[
    EventType | None,
    typer.Option(
        "--type",
        help="Only dead letters of this event type, such as hangup or call-ended.",
        metavar="TYPE",
    ),
]
Since = Annotated[
    datetime | None,
    since_option("Only dead letters that died"),
]
Everything = Annotated[bool, typer.Option("--all", help="All dead letters.")]


@dead.command("list")
def list_(
    handler: Handler = None,
    call: Call = None,
    extension: Extension = None,
    event_type: Type = None,
    since: Since = None,
    after: After = None,
    limit: Limit = MANY,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """List dead letters, in the order in which their events arrived.

    \b
    Examples:
      offhook dead list
      offhook dead list --handler crm --since 2h
      offhook dead list --limit 10
      offhook dead list --limit 10 --after crm-019a8e11c0de5f0a8e7c4b1d2f3a4b5c
    """
    settings = settings_of(tenant)
    wanted = _wanted(settings, handler, call, extension, event_type, since)
    with connect_rq(settings.jobs_url) as rq:
        found = dead_letters.find(rq, wanted, after)
        last, shown = "", []
        for letter in islice(found, limit):
            last = letter.id
            if as_json:
                shown.append(letter.as_dict())
            else:
                typer.echo("\n".join(map(printable, _lines(letter))))
        if as_json:
            print_json(shown)
        elif not last:
            note("No dead letters.")
        if next(found, None):
            note(f"More than {limit}: the next ones come with --after {last}")


@dead.command()
def show(
    letter_id: Id,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Show one dead letter: its event and its last error.

    If a bug in the handler caused it, also show the traceback. JSON always has it.

    \b
    Examples:
      offhook dead show crm-019a8e11c0de5f0a8e7c4b1d2f3a4b5c
    """
    with connect_rq(settings_of(tenant).jobs_url) as rq:
        letter = next(dead_letters.get(rq, [letter_id]), None)
        if letter is None or not Filter(tenant=tenant).admits(letter.handler):
            fail(f"There is no dead letter {letter_id}: see `offhook dead list`.")
        trace = dead_letters.traceback(rq, letter)
    if as_json:
        print_json(letter.as_dict() | {"traceback": trace})
        return
    for name, value in _facts(letter):
        typer.echo(f"{name + ':':<17} {printable(value)}")
    if not trace.rstrip().rpartition("\n")[2].startswith(DeliveryError.__module__):
        lines = "\n".join(map(printable, trace.splitlines()))
        typer.echo(f"\n{lines or 'No traceback was kept.'}")


@dead.command()
def retry(
    ids: Ids = None,
    handler: Handler = None,
    call: Call = None,
    extension: Extension = None,
    event_type: Type = None,
    since: Since = None,
    everything: Everything = False,
    tenant: Tenant = "",
    yes: Yes = False,
) -> None:
    """Deliver dead letters again, each call in order.

    \b
    Examples:
      offhook dead retry crm-019a8e11c0de5f0a8e7c4b1d2f3a4b5c
      offhook dead retry --handler crm --since 2h
      offhook dead retry --all --yes
    """
    settings = settings_of(tenant)
    wanted = _wanted(settings, handler, call, extension, event_type, since)
    with connect_rq(settings.jobs_url) as rq:
        chosen = _chosen(rq, ids, wanted, everything)
    gone = {*chosen.values()} - set(settings.handlers)
    if gone:
        fail(f"{', '.join(sorted(gone))}: no longer configured, so nothing can be delivered.")
    with connect_rq(settings.redis_url) as redis:
        loaded = [each.loaded for each in running(redis)]
        for sentence in newer_files(loaded, load_settings()):
            note(f"! {sentence}")
    confirm(f"Retry {counted(len(chosen), 'dead letter')}?", yes=yes)
    done = asyncio.run(_retry(settings, chosen))
    typer.echo(f"Retried {counted(done, 'dead letter')}.")


@dead.command()
def discard(
    ids: Ids = None,
    handler: Handler = None,
    call: Call = None,
    extension: Extension = None,
    event_type: Type = None,
    since: Since = None,
    everything: Everything = False,
    tenant: Tenant = "",
    yes: Yes = False,
) -> None:
    """Delete dead letters. Their events will never be delivered.

    \b
    Examples:
      offhook dead discard crm-019a8e11c0de5f0a8e7c4b1d2f3a4b5c
      offhook dead discard --handler crm --call 1778000000.42
    """
    settings = settings_of(tenant)
    wanted = _wanted(settings, handler, call, extension, event_type, since)
    with connect_rq(settings.jobs_url) as rq:
        chosen = _chosen(rq, ids, wanted, everything)
        confirm(f"Delete {counted(len(chosen), 'dead letter')} for good?", yes=yes)
        with progress("", len(chosen)) as advance:
            done = dead_letters.discard(rq, dead_letters.get(rq, chosen), advance)
    typer.echo(f"Deleted {counted(done, 'dead letter')}.")


def _chosen(
    rq: Redis, ids: Sequence[str] | None, wanted: Filter, everything: bool
) -> dict[str, str]:
    """Return the chosen dead letters' ids, with their handlers; exit if there are none."""
    everybodys = Filter(tenant=wanted.tenant)
    if not ids and wanted == everybodys and not everything:
        raise typer.BadParameter("choose dead letters by id, by a filter, or with --all")
    if ids and (everything or wanted != everybodys):
        raise typer.BadParameter("use either ids or filters, not both")
    if ids:
        # In the order of `find`, in which each call gets its events.
        found = {
            letter.id: letter
            for letter in dead_letters.get(rq, ids)
            if everybodys.admits(letter.handler)
        }
        if unknown := set(ids) - found.keys():
            unknown_ids = ", ".join(sorted(unknown))
            fail(f"There is no dead letter {unknown_ids}: see `offhook dead list`.")
        letters = sorted(found.values(), key=lambda letter: letter.event.id)
        return {letter.id: letter.handler for letter in letters}
    names = [each for each in queues.with_dead_letters(rq) if wanted.admits(each)]
    with progress("Reading dead letters", sum(dead_letters.counts(rq, names).values())) as advance:
        chosen: dict[str, str] = {}
        for letter in dead_letters.find(rq, wanted):
            chosen[letter.id] = letter.handler
            advance(len(chosen))
    if not chosen:
        note("No dead letters.")
        raise typer.Exit
    return chosen


def _wanted(
    settings: Settings,
    handler: str | None,
    call: str | None,
    extension: str | None,
    event_type: EventType | None,
    since: datetime | None,
) -> Filter:
    """Return the filter, if there is such a handler, or a dead letter of it."""
    everybodys = Filter(tenant=settings.tenant)
    if handler is not None:
        handler = full_name(settings, handler)
        with connect_rq(settings.jobs_url) as rq:
            had = queues.with_dead_letters(rq) if handler not in settings.handlers else []
        names = {*settings.handlers, *filter(everybodys.admits, had)}
        if handler not in names:
            raise ConfigError(
                f"there is no handler {handler!r}; "
                f"known: {', '.join(sorted(names)) or 'none'}{did_you_mean(handler, names)}"
            )
    return Filter(handler, call, extension, event_type, since, tenant=settings.tenant)


async def _retry(settings: Settings, ids: Collection[str]) -> int:
    with progress("", len(ids)) as advance:
        async with opened(settings) as (inbox, rq):
            return await dead_letters.retry(inbox, rq, dead_letters.get(rq, ids), advance)


def _lines(letter: DeadLetter) -> list[str]:
    event = letter.event
    return [
        letter.id,
        f"  {event.type.value} of {event.extension}, call {event.call}",
        f"  {letter.error} ({_attempts(letter)}, died {local(letter.died)})",
    ]


def _attempts(letter: DeadLetter) -> str:
    return counted(letter.attempts, "attempt")


def _facts(letter: DeadLetter) -> list[tuple[str, str]]:
    event = letter.event
    return [
        ("dead letter", letter.id),
        ("handler", letter.handler),
        ("died", f"{local(letter.died)}, after {_attempts(letter)}"),
        ("error", letter.error),
        ("event", event.id),
        ("type", event.type.value),
        ("extension", event.extension),
        ("call", event.call),
        ("received", local(event.received)),
        *event.parameters.items(),
    ]
