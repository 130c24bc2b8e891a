"""`offhook replay`: a handler gets events again."""

import asyncio
from datetime import datetime
from typing import Annotated

import typer

from offhook import queues
from offhook.errors import ConfigError
from offhook.settings import load_settings
from offhook_cli.moment import moment
from offhook_cli.screen import Yes, confirm, counted, local, note
from offhook_cli.server import connected


def replay(
    handler: Annotated[
        str, typer.Option(help="Its name in the configuration.", metavar="NAME", show_default=False)
    ],
    since: Annotated[
        datetime,
        typer.Option(
            parser=moment,
            metavar="TIME",
            show_default=False,
            help="2h, 3d (ago), or 2026-05-01T14:00, local time.",
        ),
    ],
    yes: Yes = False,
) -> None:
    """Set a handler's cursor back: it gets the events since then again.

    Those that its filter lets through, each with the id that it had, in the
    order of each call. Other handlers notice nothing. How far back events
    are kept is the setting keep_days. Dead letters are another matter:
    `offhook dead retry`.

    \b
    Examples:
      offhook replay --handler crm --since 2h
      offhook replay --handler crm --since 2026-05-01T14:00 --yes
    """
    settings = load_settings()
    if handler not in settings.handlers:
        raise ConfigError(
            f"no handler is configured as {handler!r}: "
            f"there are {', '.join(settings.handlers) or 'none'}"
        )

    async def run() -> None:
        async with connected(settings) as (inbox, rq):
            count, first = await inbox.read_since(handler, since)
            if first is None:
                note(f"{handler} has read no event that came since {local(since)}.")
                return
            events = counted(count, "event")
            confirm(
                f"{handler} reads {events} again, from {local(first)} on, and gets those that its "
                "filter lets through. Go on?",
                yes=yes,
            )
            count = await inbox.set_back(handler, since)
            for partition in range(settings.partitions):
                queues.wake(rq, handler, partition)
            typer.echo(f"{handler} reads {counted(count, 'event')} again.")

    asyncio.run(run())
