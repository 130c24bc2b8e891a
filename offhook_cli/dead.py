"""`offhook dead`: list, retry and discard dead letters."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Annotated

import typer

from offhook import queues
from offhook.connection import connect_rq, opened
from offhook.errors import ConfigError, DeliveryError, did_you_mean
from offhook.event import EventType
from offhook.logs import printable
from offhook.operations import dead_letters
from offhook.operations.dead_letters import DeadLetter, Filter
from offhook.operations.processes import running
from offhook.operations.running_files import newer_files
from offhook.settings import load_settings
from offhook_cli import completion
from offhook_cli.options import (
    MANY,
    After,
    Json,
    Limit,
    Yes,
    group,
    id_argument,
    ids_argument,
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
    EventType | None, typer.Option("--type", help="Only dead letters of this event type.")
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
    found = _found(Filter(handler, call, extension, event_type, since), limit + 1, after)
    more, found = found[limit:], found[:limit]
    if as_json:
        print_json([letter.as_dict() for letter in found])
    elif not found:
        note("No dead letters.")
    else:
        for letter in found:
            typer.echo("\n".join(map(printable, _lines(letter))))
    if more:
        note(f"More than {limit}: the next ones come with --after {found[-1].id}")


@dead.command()
def show(
    letter_id: Id,
    as_json: Json = False,
) -> None:
    """Show one dead letter: its event and its last error.

    If a bug in the handler caused it, also show the traceback. JSON always has it.

    \b
    Examples:
      offhook dead show crm-019a8e11c0de5f0a8e7c4b1d2f3a4b5c
    """
    with connect_rq(load_settings().jobs_url) as rq:
        [letter] = _by_id(list(dead_letters.find(rq)), [letter_id])
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
    yes: Yes = False,
) -> None:
    """Deliver dead letters again, each call in order.

    \b
    Examples:
      offhook dead retry crm-019a8e11c0de5f0a8e7c4b1d2f3a4b5c
      offhook dead retry --handler crm --since 2h
      offhook dead retry --all --yes
    """
    wanted = Filter(handler, call, extension, event_type, since)
    letters = _chosen(ids, wanted, everything)
    settings = load_settings()
    gone = {letter.handler for letter in letters} - set(settings.handlers)
    if gone:
        fail(f"{', '.join(sorted(gone))}: no longer configured, so nothing can be delivered.")
    with connect_rq(settings.redis_url) as redis:
        loaded = [each.loaded for each in running(redis)]
        for sentence in newer_files(loaded, settings):
            note(f"! {sentence}")
    confirm(f"Retry {counted(len(letters), 'dead letter')}?", yes=yes)
    done = asyncio.run(_retry(letters))
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
    yes: Yes = False,
) -> None:
    """Delete dead letters. Their events will never be delivered.

    \b
    Examples:
      offhook dead discard crm-019a8e11c0de5f0a8e7c4b1d2f3a4b5c
      offhook dead discard --handler crm --call 1778000000.42
    """
    letters = _chosen(ids, Filter(handler, call, extension, event_type, since), everything)
    confirm(f"Delete {counted(len(letters), 'dead letter')} for good?", yes=yes)
    with progress("", len(letters)) as advance, connect_rq(load_settings().jobs_url) as rq:
        done = dead_letters.discard(rq, letters, advance)
    typer.echo(f"Deleted {counted(done, 'dead letter')}.")


def _chosen(ids: Sequence[str] | None, wanted: Filter, everything: bool) -> list[DeadLetter]:
    """Return the dead letters with these ids or matching the filter; exit if there are none."""
    if not ids and wanted == Filter() and not everything:
        raise typer.BadParameter("choose dead letters by id, by a filter, or with --all")
    if ids and (everything or wanted != Filter()):
        raise typer.BadParameter("use either ids or filters, not both")
    found = _found(wanted)
    if ids:
        return _by_id(found, ids)
    if not found:
        note("No dead letters.")
        raise typer.Exit
    return found


def _found(wanted: Filter, most: int | None = None, after: str | None = None) -> list[DeadLetter]:
    """Return the first dead letters that match a filter, after the one with this id."""
    settings = load_settings()
    with connect_rq(settings.jobs_url) as rq:
        names = {*settings.handlers, *queues.with_dead_letters(rq)}
        if wanted.handler is not None and wanted.handler not in names:
            raise ConfigError(
                f"there is no handler {wanted.handler!r}; "
                f"known: {', '.join(sorted(names)) or 'none'}{did_you_mean(wanted.handler, names)}"
            )
        with progress(
            "Reading dead letters", most or sum(dead_letters.counts(rq, [*names]).values())
        ) as advance:
            found = []
            for letter in islice(dead_letters.find(rq, wanted, after), most):
                found.append(letter)
                advance(len(found))
            return found


def _by_id(found: Sequence[DeadLetter], ids: Sequence[str]) -> list[DeadLetter]:
    unknown = set(ids) - {letter.id for letter in found}
    if unknown:
        fail(f"There is no dead letter {', '.join(sorted(unknown))}: see `offhook dead list`.")
    return [letter for letter in found if letter.id in ids]


async def _retry(letters: Sequence[DeadLetter]) -> int:
    with progress("", len(letters)) as advance:
        async with opened(load_settings()) as (inbox, rq):
            return await dead_letters.retry(inbox, rq, letters, advance)


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
