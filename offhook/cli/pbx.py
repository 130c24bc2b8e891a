"""The PBX, as the commands reach its API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Annotated

import typer

from offhook.cli.screen import fail, note
from offhook.errors import ConfigError
from offhook.pbx import chosen, open_api, sentence
from offhook.settings import load_settings
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
    if settings.pbx[pbx].insecure:
        note(f"! pbx.{pbx}: insecure: nothing proves that {settings.pbx[pbx].host} is it")
    try:
        async with open_api(settings, pbx) as api:
            yield api, user or settings.pbx[pbx].user
    except ConfigError:
        raise
    except UnifiedApiError as error:
        fail(sentence(error))


def in_words(status: IntEnum | None) -> str:
    """A status of the PBX, such as `not registered`."""
    return "unknown" if status is None else status.name.lower().replace("_", " ")
