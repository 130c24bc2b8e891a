"""`offhook console wall`: make, list and revoke wall links."""

import asyncio
from getpass import getuser
from typing import Annotated

import typer
from msgspec import to_builtins

from offhook.connection import connect
from offhook.operations.audit import Change, note_change
from offhook.operations.wall_links import WallLink, make_wall_link, revoke_wall_link, wall_links
from offhook.settings import load_settings
from offhook_cli.options import Json, Tenant, group, settings_of
from offhook_cli.screen import fail, local, note, print_json, print_table

wall = group("Make, list and revoke wall links: a wallboard for one screen, without sign-in.")


@wall.command()
def add(
    name: Annotated[
        str, typer.Argument(help="The screen's name, such as 'Reception screen'.", metavar="NAME")
    ],
    tenant: Tenant = "",
    url: Annotated[
        str | None,
        typer.Option(
            help="The console's own address, as the screen reaches it.",
            metavar="URL",
            show_default="the first of origins in [console]",
        ),
    ] = None,
) -> None:
    """Make a wall link, and print its address.

    The address is shown once: Redis keeps only its hash.

    \b
    Examples:
      offhook console wall add 'Reception screen'
      offhook console wall add Lobby --tenant acme --url https://console.example.com
    """
    settings_of(tenant)
    base = url or next(iter(load_settings().console.origins), "http://127.0.0.1:8090")

    async def made() -> tuple[WallLink, str]:
        async with connect(load_settings().redis_url) as redis:
            link, secret = await make_wall_link(redis, name, _user(), tenant)
            details = {"name": link.name, "id": link.id}
            await note_change(redis, _user(), Change.WALL_LINK_MADE, details)
        return link, secret

    link, secret = asyncio.run(made())
    typer.echo(f"{base.rstrip('/')}/wall/{secret}")
    note(f"It is not shown again. `offhook console wall revoke {link.id}` revokes it.")


@wall.command("list")
def list_(tenant: Tenant = "", as_json: Json = False) -> None:
    """List the wall links, and when a screen last showed each.

    \b
    Examples:
      offhook console wall list
      offhook console wall list --tenant acme --json
    """
    settings_of(tenant)

    async def found() -> list[WallLink]:
        async with connect(load_settings().redis_url) as redis:
            return await wall_links(redis, tenant)

    links = asyncio.run(found())
    if as_json:
        print_json([to_builtins(each) for each in links])
    elif not links:
        note("There are no wall links.")
    else:
        rows = [
            [each.id, each.name, each.by, local(each.made), local(each.seen) if each.seen else "-"]
            for each in links
        ]
        print_table("id", "screen", "made by", "made", "seen", rows=rows)


@wall.command()
def revoke(
    id_: Annotated[str, typer.Argument(help="As `list` shows it.", metavar="ID")],
    tenant: Tenant = "",
) -> None:
    """Revoke a wall link: its screens go dark within a second.

    \b
    Examples:
      offhook console wall revoke 5f1c09ab3d27
    """
    settings_of(tenant)

    async def revoked() -> WallLink | None:
        async with connect(load_settings().redis_url) as redis:
            link = await revoke_wall_link(redis, id_, tenant)
            if link is not None:
                details = {"name": link.name, "id": link.id}
                await note_change(redis, _user(), Change.WALL_LINK_REVOKED, details)
        return link

    link = asyncio.run(revoked())
    if link is None:
        fail(f"{id_}: there is no such wall link; `offhook console wall list` shows all")
    note(f"Revoked “{link.name}”.")


def _user() -> str:
    return f"{getuser()} (command line)"
