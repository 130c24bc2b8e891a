"""`offhook presence`: show which phones are registered, and their status."""

import asyncio
from typing import Annotated, Any

import typer

from offhook_cli import completion
from offhook_cli.options import Json, PbxName, Tenant, UserId
from offhook_cli.pbx_api import in_words, pbx_api
from offhook_cli.pbx_list import ListRequest, read, with_list_options
from offhook_cli.screen import local, note, print_json, print_table
from unifiedapi.resources import Presence

_FIELDS = ("extension", "status", "registration")  # in the API


@with_list_options
def presence(
    extension: Annotated[
        str,
        typer.Argument(
            help="An extension, such as 0003*210; @self: all.",
            metavar="EXTENSION",
            autocompletion=completion.extensions,
        ),
    ] = "@self",
    *,
    request: ListRequest,
    pbx: PbxName = None,
    user: UserId = None,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Show which phones are registered, and their status.

    The fields are extension, status and registration. The PBX filters only by
    extension, and sorts by it.

    \b
    Examples:
      offhook presence
      offhook presence '0003*210' --json
      offhook presence --filter-by extension --filter-op startsWith --filter-value '0003*2'
      offhook presence --fields 'extension, status' --sort-order desc --count 10
    """

    async def listed() -> list[Presence]:
        async with pbx_api(pbx, user, tenant) as (api, user_id):
            listing = api.presence.list(extension, user=user_id, **request.options)
            return await read(listing, request.count)

    found, shown = asyncio.run(listed()), request.fields or _FIELDS
    if as_json:
        print_json([_as_dict(each, shown) for each in found])
    elif not found:
        note("The PBX reports no phone terminals.")
    else:
        columns = [["extension"], ["status"], ["phone", "registration", "until"]]
        wanted = [n for n, name in enumerate(_FIELDS) if name in shown or name == "extension"]
        print_table(
            *(title for n in wanted for title in columns[n]),
            rows=[[cell for n in wanted for cell in _cells(each)[n]] for each in found],
        )


def _cells(presence: Presence) -> list[list[str]]:
    """Return the cells of each field."""
    phones = presence.registration
    return [
        [presence.extension],
        [in_words(presence.status)],
        [
            "\n".join(phone.agent or "-" for phone in phones) or "-",
            "\n".join(in_words(phone.registration) for phone in phones) or "-",
            "\n".join(local(phone.expire) if phone.expire else "-" for phone in phones) or "-",
        ],
    ]


def _as_dict(presence: Presence, shown: list[str] | tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"extension": presence.extension}
    if "status" in shown:
        found["status"] = in_words(presence.status)
    if "registration" in shown:
        found["phones"] = [
            {
                "agent": phone.agent,
                "registration": in_words(phone.registration),
                "expire": phone.expire,
            }
            for phone in presence.registration
        ]
    return found
