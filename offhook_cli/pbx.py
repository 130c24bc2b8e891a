"""The PBX, as the commands reach its API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Annotated
from urllib.parse import urlsplit

import typer

from offhook.errors import ConfigError
from offhook.provisioning.api import chosen, open_api, sentence
from offhook.settings import Settings, load_settings
from offhook_cli.screen import fail, note
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import UnifiedApiError

PbxName = Annotated[
    str | None,
    typer.Option("--pbx", help="Which PBX; not needed if one is configured.", metavar="NAME"),
]
UserId = Annotated[
    str | None,
    typer.Option(
        "--user", help="Whose extensions: @me, @owner or an id.", show_default="the PBX's `user`"
    ),
]


@asynccontextmanager
async def pbx_api(name: str | None, user: str | None) -> AsyncIterator[tuple[UnifiedApi, str]]:
    """The API of a configured PBX, and whose extensions to ask for.

    What the PBX refuses ends the command with a sentence.
    """
    settings = load_settings()
    pbx = chosen(settings, name)
    tell_insecure(settings, pbx)
    try:
        async with open_api(settings, pbx) as api:
            yield api, user or settings.pbx[pbx].user
    except ConfigError:
        raise
    except UnifiedApiError as error:
        fail(sentence(error))


def tell_insecure(settings: Settings, pbx: str) -> None:
    """Say each time that nothing proves who the PBX is, when `insecure` is set."""
    if settings.pbx[pbx].insecure:
        host = urlsplit(settings.pbx[pbx].host or "").netloc
        note(f"! pbx.{pbx}: insecure: whoever answers at {host} is taken for it")


def in_words(status: IntEnum | None) -> str:
    """A status of the PBX, such as `not registered`."""
    return "unknown" if status is None else status.name.lower().replace("_", " ")
