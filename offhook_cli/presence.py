"""`offhook presence`: show which phones are registered, and their status."""

import asyncio
from typing import Annotated, Any

import typer

from offhook_cli.options import Json, PbxName, UserId
from offhook_cli.pbx import in_words, pbx_api
from offhook_cli.screen import local, note, print_json, print_table
from unifiedapi.resources import Presence


def presence(
    extension: Annotated[
        str, typer.Argument(help="An extension, such as 0003*210; @self: all.", metavar="EXTENSION")
    ] = "@self",
    pbx: PbxName = None,
    user: UserId = None,
    as_json: Json = False,
) -> None:
    """Show which phones are registered, and their status.

    \b
    Examples:
      offhook presence
      offhook presence '0003*210' --json
    """
    found = asyncio.run(_listed(extension, pbx, user))
    if as_json:
        print_json([_as_dict(each) for each in found])
    elif not found:
        note("The PBX reports no phone terminals.")
    else:
        print_table(
            "extension", "status", "phone", "registration", "until", rows=[*map(_row, found)]
        )


async def _listed(extension: str, pbx: str | None, user: str | None) -> list[Presence]:
    async with pbx_api(pbx, user) as (api, user_id):
        return [each async for each in api.presence.list(extension, user=user_id)]


def _row(presence: Presence) -> list[str]:
    phones = presence.registration
    return [
        presence.extension,
        in_words(presence.status),
        "\n".join(phone.agent or "-" for phone in phones) or "-",
        "\n".join(in_words(phone.registration) for phone in phones) or "-",
        "\n".join(local(phone.expire) if phone.expire else "-" for phone in phones) or "-",
    ]


def _as_dict(presence: Presence) -> dict[str, Any]:
    return {
        "extension": presence.extension,
        "status": in_words(presence.status),
        "phones": [
            {
                "agent": phone.agent,
                "registration": in_words(phone.registration),
                "expire": phone.expire,
            }
            for phone in presence.registration
        ],
    }
