"""`offhook quarantine`: inspect refused callbacks, and deliver them after all."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer
from redis.asyncio import Redis

from offhook.connection import opened
from offhook.errors import ConfigError, InboxUnavailable
from offhook.inbox import quarantine as refused_callbacks
from offhook.inbox.positions import order_of
from offhook.logs import printable
from offhook.settings import load_settings
from offhook_cli import completion
from offhook_cli.options import (
    MANY,
    After,
    Json,
    Limit,
    Tenant,
    Yes,
    group,
    id_argument,
    ids_argument,
    settings_of,
)
from offhook_cli.screen import confirm, counted, fail, local, note, print_json
from receiver.quarantine_retry import Retried
from receiver.quarantine_retry import retry as deliver

T = TypeVar("T")

quarantine = group("List, show, deliver and delete refused callbacks.")


@quarantine.command("list")
def list_(
    after: After = None, limit: Limit = MANY, tenant: Tenant = "", as_json: Json = False
) -> None:
    """List refused callbacks, newest first, each with the reason.

    Their URLs were valid, so most likely the PBX sent them. The setting
    quarantine_size limits how many are kept.

    \b
    Examples:
      offhook quarantine list
      offhook quarantine list --limit 10 --after 1778000000000-0
    """
    try:
        found = _run(lambda redis: refused_callbacks.kept(redis, tenant, after, limit + 1), tenant)
    except ValueError as error:
        raise ConfigError(f"--after: {error}") from error
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
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Show one refused callback, with its query and body.

    \b
    Examples:
      offhook quarantine show 1778000000000-0
    """
    [refused] = _these([key], tenant).values()
    if as_json:
        print_json(_as_dict(key, refused))
        return
    for name, value in _as_dict(key, refused).items():
        typer.echo(f"{name + ':':<13} {printable(value)}")


@quarantine.command()
def retry(
    ids: Annotated[list[str] | None, ids_argument(completion.refused_callbacks)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All refused callbacks.")] = False,
    tenant: Tenant = "",
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
    if ids:
        chosen = _these(ids, tenant)
    else:
        chosen = dict(reversed(_run(lambda redis: refused_callbacks.kept(redis, tenant), tenant)))
    if not chosen:
        note("The quarantine is empty.")
        return
    confirm(f"Deliver {counted(len(chosen), 'refused callback')}?", yes=yes)
    done = asyncio.run(_retry(chosen, tenant))
    for key, message in done.refused.items():
        note(f"{key} is still refused: {printable(message)}")
    repeats = f", and dropped {counted(len(done.repeats), 'repeat')}" if done.repeats else ""
    typer.echo(f"Delivered {counted(len(done.delivered), 'callback')}{repeats}.")
    if done.refused:
        raise typer.Exit(1)


@quarantine.command()
def clear(tenant: Tenant = "", yes: Yes = False) -> None:
    """Delete all refused callbacks.

    \b
    Examples:
      offhook quarantine clear
    """
    count = _run(lambda redis: refused_callbacks.length(redis, tenant), tenant)
    if not count:
        note("The quarantine is empty.")
        return
    callbacks = counted(count, "refused callback")
    confirm(f"Delete {callbacks}?", yes=yes)
    _run(lambda redis: refused_callbacks.clear(redis, tenant), tenant)
    typer.echo(f"Deleted {callbacks}.")


def _these(ids: Sequence[str], tenant: str) -> dict[str, dict[str, bytes]]:
    """Return the refused callbacks with these ids, oldest first; exit if one does not exist."""
    found = dict(_run(lambda redis: refused_callbacks.get(redis, ids, tenant), tenant))
    if unknown := [key for key in ids if key not in found]:
        fail(f"There is no refused callback {', '.join(unknown)}: see `offhook quarantine list`.")
    return {key: found[key] for key in sorted(found, key=lambda key: order_of(key.encode()))}


def _run(go: Callable[[Redis], Awaitable[T]], tenant: str) -> T:
    async def run() -> T:
        async with opened(settings_of(tenant)) as (inbox, _):
            return await go(inbox.redis)

    return asyncio.run(run())


async def _retry(chosen: dict[str, dict[str, bytes]], tenant: str) -> Retried:
    settings = load_settings()
    async with opened(settings) as (inbox, _):
        try:
            return await deliver(settings, inbox, chosen.items(), tenant)
        except InboxUnavailable as error:
            fail(f"Not all of them were delivered, so they stay in the quarantine: {error}")


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
