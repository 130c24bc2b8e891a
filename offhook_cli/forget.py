"""`offhook forget`: delete the position of a handler that is no longer configured."""

import asyncio
from typing import Annotated

import typer

from offhook.connection import opened
from offhook.errors import ConfigError
from offhook.inbox.record import Record
from offhook.settings import config_path, table_of, tenant_of_plugin
from offhook_cli import completion
from offhook_cli.options import Tenant, Yes, full_name, settings_of
from offhook_cli.screen import confirm


def forget(
    handler: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A handler that is no longer configured.",
            autocompletion=completion.forgotten_handlers,
        ),
    ],
    tenant: Tenant = "",
    yes: Yes = False,
) -> None:
    """Delete the position of a handler that is no longer configured.

    Also deletes its redeliveries, and what the record of deliveries has of it.
    Its dead letters stay: discard them with `offhook dead discard`. Other
    handlers are not affected.

    \b
    Examples:
      offhook forget old-crm
    """
    settings = settings_of(tenant)
    handler = full_name(settings, handler)
    if handler in settings.handlers:
        raise ConfigError(
            f"{table_of('handlers', handler)} is still configured: remove it from "
            f"{config_path()} and restart `offhook work` first"
        )

    async def run() -> None:
        async with opened(settings) as (inbox, _):
            left = sorted(
                name
                for name in await inbox.known(tenant) - settings.handlers.keys()
                if tenant_of_plugin(name) == tenant
            )
            if handler not in left:
                raise ConfigError(
                    f"{handler} has no position; handlers that are no longer configured and "
                    f"still have one: {', '.join(left) or 'none'}"
                )
            confirm(f"{handler} will never get its undelivered events. Continue?", yes=yes)
            await inbox.forget(handler)
            await Record(inbox).forget(handler)
            typer.echo(f"Deleted the position of {handler}.")

    asyncio.run(run())
