"""`offhook quarantine`: inspect refused callbacks, and deliver them after all."""

import asyncio
from datetime import datetime
from typing import Annotated, Any

import typer

from offhook.connection import opened
from offhook.errors import InboxUnavailable
from offhook.inbox import quarantine as refused_callbacks
from offhook.logs import printable
from offhook.settings import load_settings
from offhook_cli import completion
from offhook_cli.options import MANY, After, Json, Limit, Yes, group, id_argument, ids_argument
from offhook_cli.screen import confirm, counted, fail, local, note, print_json
from receiver.quarantine_retry import Retried
from receiver.quarantine_retry import retry as deliver

quarantine = group("List, show, deliver and delete refused callbacks.")


@quarantine.command("list")
def list_(after: After = None, limit: Limit = MANY, as_json: Json = False) -> None:
    """List refused callbacks, newest first, each with the reason.

    Their URLs were valid, so most likely the PBX sent them. The setting
    quarantine_size limits how many are kept.

    \b
    Examples:
      offhook quarantine list
      offhook quarantine list --limit 10 --after 1778000000000-0
    """
    found = _read()
    if after is not None:
        found = found[next((n for n, (key, _) in enumerate(found, 1) if key == after), 0) :]
    more, found = found[limit:], found[:limit]
    if as_json:
        print_json([_as_dict(key, refused) for key, refused in found])
    elif not found:
        note("The quarantine is empty.")
    else:
        for key, refused in found:
            typer.echo("\n".join(map(printable, _lines(key, refused))))
    if more:
        note(f"More than {limit}: the next ones come with --after {found[-1][0]}")


@quarantine.command()
def show(
    key: Annotated[str, id_argument(completion.refused_callbacks)],
    as_json: Json = False,
) -> None:
    """Show one refused callback, with its query and body.

    \b
    Examples:
      offhook quarantine show 1778000000000-0
    """
    refused = dict(_read()).get(key)
    if refused is None:
        fail(f"There is no refused callback {key}: see `offhook quarantine list`.")
    if as_json:
        print_json(_as_dict(key, refused))
        return
    for name, value in _as_dict(key, refused).items():
        typer.echo(f"{name + ':':<13} {printable(value)}")


@quarantine.command()
def retry(
    ids: Annotated[list[str] | None, ids_argument(completion.refused_callbacks)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All refused callbacks.")] = False,
    yes: Yes = False,
) -> None:
    """Read refused callbacks again, and deliver their events.

    Use it after you corrected the reason: a limit in the configuration, or a
    version of Offhook. What is still refused stays in the quarantine. An
    event is dated by when its callback came.

    Exits with 1 if a callback is still refused.

    \b
    Examples:
      offhook quarantine retry 1778000000000-0
      offhook quarantine retry --all --yes
    """
    if bool(ids) is everything:
        raise typer.BadParameter("choose refused callbacks by id, or all of them with --all")
    kept = dict(reversed(_read()))
    if unknown := [key for key in ids or () if key not in kept]:
        fail(f"There is no refused callback {', '.join(unknown)}: see `offhook quarantine list`.")
    chosen = kept if everything else {key: kept[key] for key in kept if key in (ids or ())}
    if not chosen:
        note("The quarantine is empty.")
        return
    confirm(f"Deliver {counted(len(chosen), 'refused callback')}?", yes=yes)
    done = asyncio.run(_retry(chosen))
    for key, message in done.refused.items():
        note(f"{key} is still refused: {printable(message)}")
    repeats = f", and dropped {counted(len(done.repeats), 'repeat')}" if done.repeats else ""
    typer.echo(f"Delivered {counted(len(done.delivered), 'callback')}{repeats}.")
    if done.refused:
        raise typer.Exit(1)


@quarantine.command()
def clear(yes: Yes = False) -> None:
    """Delete all refused callbacks.

    \b
    Examples:
      offhook quarantine clear
    """
    count = len(_read())
    if not count:
        note("The quarantine is empty.")
        return
    callbacks = counted(count, "refused callback")
    confirm(f"Delete {callbacks}?", yes=yes)
    asyncio.run(_clear())
    typer.echo(f"Deleted {callbacks}.")


def _read() -> list[tuple[str, dict[str, bytes]]]:
    async def read() -> list[tuple[str, dict[str, bytes]]]:
        async with opened(load_settings()) as (inbox, _):
            return await refused_callbacks.kept(inbox.redis)

    return asyncio.run(read())


async def _retry(chosen: dict[str, dict[str, bytes]]) -> Retried:
    settings = load_settings()
    async with opened(settings) as (inbox, _):
        try:
            return await deliver(settings, inbox, chosen.items())
        except InboxUnavailable as error:
            fail(f"Not all of them were delivered, so they stay in the quarantine: {error}")


async def _clear() -> None:
    async with opened(load_settings()) as (inbox, _):
        await refused_callbacks.clear(inbox.redis)


def _as_dict(key: str, refused: dict[str, bytes]) -> dict[str, Any]:
    return {"id": key} | {name: value.decode("utf-8", "replace") for name, value in refused.items()}


def _lines(key: str, refused: dict[str, bytes]) -> list[str]:
    kept = _as_dict(key, refused)
    received = local(datetime.fromisoformat(kept["received"]))
    return [
        key,
        f"  {kept['method']} {kept['event_type']} of {kept['extension']}, PBX {kept['pbx']}",
        f"  {kept['message']} (received {received})",
    ]
