"""`offhook quarantine`: the callbacks that were refused."""

import asyncio
from datetime import datetime
from typing import Annotated, Any

import typer

from offhook.logs import printable
from offhook.settings import load_settings
from offhook_cli.screen import (
    Json,
    Yes,
    confirm,
    counted,
    fail,
    local,
    note,
    print_json,
)
from offhook_cli.server import connected

quarantine = typer.Typer(
    help="Look at callbacks that were refused.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@quarantine.command("list")
def list_(as_json: Json = False) -> None:
    """List the refused callbacks, the newest first.

    They came with a valid URL, so most likely from the PBX, and were not
    taken: each says why. The setting quarantine_size is how many are kept.

    \b
    Examples:
      offhook quarantine list
    """
    found = _read()
    if as_json:
        print_json([_as_dict(key, refused) for key, refused in found])
    elif not found:
        note("No callback is in quarantine.")
    else:
        for key, refused in found:
            typer.echo("\n".join(map(printable, _lines(key, refused))))


@quarantine.command()
def show(
    key: Annotated[str, typer.Argument(help="As `list` shows it.", metavar="ID")],
    as_json: Json = False,
) -> None:
    """Show one refused callback, with its query and its body.

    \b
    Examples:
      offhook quarantine show 1778000000000-0
    """
    refused = dict(_read()).get(key)
    if refused is None:
        fail(f"No callback is in quarantine as {key}: `offhook quarantine list` shows which are.")
    if as_json:
        print_json(_as_dict(key, refused))
        return
    for name, value in _as_dict(key, refused).items():
        typer.echo(f"{name + ':':<13} {printable(value)}")


@quarantine.command()
def clear(yes: Yes = False) -> None:
    """Forget all refused callbacks.

    \b
    Examples:
      offhook quarantine clear
    """
    count = len(_read())
    if not count:
        note("No callback is in quarantine.")
        return
    callbacks = counted(count, "refused callback")
    confirm(f"Forget {callbacks}?", yes=yes)
    asyncio.run(_clear())
    typer.echo(f"Forgot {callbacks}.")


def _read() -> list[tuple[str, dict[str, bytes]]]:
    async def read() -> list[tuple[str, dict[str, bytes]]]:
        async with connected(load_settings()) as (inbox, _):
            return await inbox.quarantined()

    return asyncio.run(read())


async def _clear() -> None:
    async with connected(load_settings()) as (inbox, _):
        await inbox.clear_quarantine()


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
