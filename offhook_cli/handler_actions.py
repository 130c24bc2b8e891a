"""`offhook handlers pause`, `resume`: what is done to a configured handler while it runs."""

import asyncio
import getpass
import os
from typing import Annotated

import typer

from offhook.connection import opened
from offhook.errors import ConfigError, not_configured
from offhook.operations.pausing import set_paused
from offhook.settings import Settings
from offhook_cli import completion
from offhook_cli.options import Tenant, full_name, settings_of

Configured = Annotated[
    str,
    typer.Argument(
        help="A configured handler.", metavar="NAME", autocompletion=completion.handlers
    ),
]


def pause(name: Configured, tenant: Tenant = "") -> None:
    """Deliver nothing to a handler until it is resumed.

    Takes effect within two seconds; deliveries that run are finished. Its
    events and redeliveries wait, each call in order, across restarts and
    reloads. Other handlers are not affected. Events wait for as long as the
    inbox keeps them: `offhook status` says if that ends soon.

    \b
    Examples:
      offhook handlers pause crm
    """
    settings, handler = configured(name, tenant)
    changed = _set(settings, handler, paused=True)
    typer.echo(f"{handler} is paused." if changed else f"{handler} is paused already.")


def resume(name: Configured, tenant: Tenant = "") -> None:
    """Deliver to a paused handler again, from where it stopped.

    New events follow within two seconds, redeliveries within twenty.

    \b
    Examples:
      offhook handlers resume crm
    """
    settings, handler = configured(name, tenant)
    changed = _set(settings, handler, paused=False)
    typer.echo(f"{handler} is resumed." if changed else f"{handler} is not paused.")


def configured(name: str, tenant: str) -> tuple[Settings, str]:
    """The settings of a tenant, and the full name of a handler that they have.

    Raises:
        ConfigError: they have no such handler.
    """
    settings = settings_of(tenant)
    handler = full_name(settings, name)
    if handler not in settings.handlers:
        raise ConfigError(not_configured("handler", handler, settings.handlers))
    return settings, handler


def user() -> str:
    """Who runs the command, for the audit log."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for the user
        return f"user {os.getuid()}"


def _set(settings: Settings, handler: str, *, paused: bool) -> bool:
    async def run() -> bool:
        async with opened(settings) as (inbox, _):
            return await set_paused(inbox.redis, handler, user(), paused=paused)

    return asyncio.run(run())
