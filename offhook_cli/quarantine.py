"""`offhook quarantine`: inspect refused callbacks."""

import asyncio
from datetime import datetime
from typing import Annotated, Any

import typer

from offhook.connection import opened
from offhook.inbox import quarantine as refused_callbacks
from offhook.logs import printable
from offhook.settings import load_settings
from offhook_cli.options import Json, Yes, group
from offhook_cli.screen import confirm, counted, fail, local, note, print_json

quarantine = group("List, show and delete refused callbacks.")


@quarantine.command("list")
def list_(as_json: Json = False) -> None:
    """List refused callbacks, newest first, each with the reason.

    Their URLs were valid, so most likely the PBX sent them. The setting
    quarantine_size limits how many are kept.

    \b
    Examples:
      offhook quarantine list
    """
    found = _read()
    if as_json:
        print_json([_as_dict(key, refused) for key, refused in found])
    elif not found:
        note("The quarantine is empty.")
    else:
        for key, refused in found:
            typer.echo("\n".join(map(printable, _lines(key, refused))))


@quarantine.command()
def show(
    key: Annotated[str, typer.Argument(help="The id that `list` shows.", metavar="ID")],
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
