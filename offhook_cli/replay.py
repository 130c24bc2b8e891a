"""`offhook replay`: redeliver past events to a handler."""

import asyncio
from datetime import datetime
from typing import Annotated

import typer

from offhook.connection import opened
from offhook.errors import ConfigError, not_configured
from offhook.inbox.replays import Replays
from offhook_cli import completion
from offhook_cli.options import Tenant, Yes, full_name, settings_of, since_option
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
    tenant: Tenant = "",
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
    settings = settings_of(tenant)
    handler = full_name(settings, handler)
    if handler not in settings.handlers:
        raise ConfigError(not_configured("handler", handler, settings.handlers))
    # An operator's handler may get the events of tenants.
    streams = [tenant]
    if not tenant:
        streams += [each for each in settings.tenants if settings.handlers[handler].gets(each)]

    async def run() -> None:
        async with opened(settings) as (inbox, _):
            replays = Replays(inbox)
            found = {each: await replays.find(handler, since, each) for each in streams}
            first = min((each.first for each in found.values() if each.first), default=None)
            if first is None:
                note(f"{handler} has not read any event since {local(since)}.")
                return
            events = counted(sum(each.total for each in found.values()), "event")
            confirm(
                f"{handler} will read {events} again, from {local(first)}. "
                "Its filter applies. Continue?",
                yes=yes,
            )
            for each, read in found.items():
                await replays.set_back(handler, since, each, found=read)
            typer.echo(f"{handler} will read {events} again.")

    asyncio.run(run())
