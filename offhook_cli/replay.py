"""`offhook replay`: redeliver past events to a handler."""

import asyncio
from datetime import datetime
from typing import Annotated

import typer

from offhook.connection import opened
from offhook.errors import ConfigError, not_configured
from offhook.settings import load_settings
from offhook_cli import completion
from offhook_cli.options import Yes, since_option
from offhook_cli.screen import confirm, counted, local, note


def replay(
    handler: Annotated[
        str,
        typer.Option(
            help="The handler's name in the configuration.",
            metavar="NAME",
            show_default=False,
            autocompletion=completion.handlers,
        ),
    ],
    since: Annotated[
        datetime,
        since_option("Redeliver events accepted"),
    ],
    yes: Yes = False,
) -> None:
    """Redeliver past events to a handler.

    Moves the handler's position back. Events keep their ids and the order of
    each call; the handler's filter applies. Other handlers are not affected.
    The setting keep_days says how long events are kept. For dead letters use
    `offhook dead retry`.

    \b
    Examples:
      offhook replay --handler crm --since 2h
      offhook replay --handler crm --since 2026-05-01T14:00 --yes
    """
    settings = load_settings()
    if handler not in settings.handlers:
        raise ConfigError(not_configured("handler", handler, settings.handlers))

    async def run() -> None:
        async with opened(settings) as (inbox, _):
            found = await inbox.read_since(handler, since)
            if found.first is None:
                note(f"{handler} has not read any event since {local(since)}.")
                return
            events = counted(found.total, "event")
            confirm(
                f"{handler} will read {events} again, from {local(found.first)}. "
                "Its filter applies. Continue?",
                yes=yes,
            )
            await inbox.set_back(handler, since, found=found)
            typer.echo(f"{handler} will read {events} again.")

    asyncio.run(run())
