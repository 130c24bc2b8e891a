"""`offhook forget`: the cursor of a handler that is configured no more."""

import asyncio
from typing import Annotated

import typer

from offhook import queues
from offhook.errors import ConfigError
from offhook.settings import config_path, load_settings
from offhook_cli.screen import Yes, confirm
from offhook_cli.server import connected


def forget(
    handler: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    yes: Yes = False,
) -> None:
    """Delete the cursor of a handler that is configured no more.

    With it goes what waited for a redelivery to that handler. Its dead letters
    stay: `offhook dead discard` is for them. Other handlers notice nothing.

    \b
    Examples:
      offhook forget old-crm
    """
    settings = load_settings()
    if handler in settings.handlers:
        raise ConfigError(
            f"handlers.{handler}: is configured; remove it from {config_path()} first, "
            "and restart `offhook work`"
        )

    async def run() -> None:
        async with connected(settings) as (inbox, rq):
            cursors = sorted(await inbox.cursors() - set(settings.cursors))
            if handler not in cursors:
                raise ConfigError(
                    f"{handler} has no cursor; of the handlers that are configured no more, "
                    f"{', '.join(cursors) or 'none'} has one"
                )
            confirm(f"What {handler} has not got is not delivered any more. Go on?", yes=yes)
            await inbox.forget(handler)
            queues.forget(rq, handler, settings.partitions)
            typer.echo(f"{handler} has no cursor any more.")

    asyncio.run(run())
