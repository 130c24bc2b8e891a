"""`offhook tail`: show events and deliveries of a running installation as they happen."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.console import Console

from offhook.connection import opened
from offhook.errors import ConfigError, not_configured
from offhook.event import CallEvent
from offhook.settings import Settings
from offhook_cli import completion
from offhook_cli.live import Attempt, Lines, watched
from offhook_cli.options import Tenant, full_name, settings_of
from offhook_cli.screen import note

Filter = Sequence[str] | None


def tail(
    handler: Annotated[
        list[str] | None,
        typer.Option(
            help="Show only deliveries to this handler, and no events. May be repeated.",
            metavar="NAME",
            autocompletion=completion.handlers,
            show_default="events, and deliveries to all handlers",
        ),
    ] = None,
    extension: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this extension. May be repeated.",
            metavar="EXTENSION",
            show_default="all",
            autocompletion=completion.extensions,
        ),
    ] = None,
    call: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this call, by its id: PBX/CALLID or CALLID. May be repeated.",
            metavar="ID",
            show_default="all",
            autocompletion=completion.calls,
        ),
    ] = None,
    tenant: Tenant = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object per line: an event or a delivery.")
    ] = False,
) -> None:
    """Show events and deliveries as they happen, until Ctrl-C.

    Shows what happens from now on, and misses what happens while it is not
    connected. For past calls use `offhook calls`, for failures `offhook dead`.

    \b
    Examples:
      offhook tail
      offhook tail --handler crm --extension '0003*210'
      offhook tail --json | jq 'select(.delivery.outcome == "failed")'
    """
    settings = settings_of(tenant)
    handler = [full_name(settings, name) for name in handler or ()]
    for name in handler:
        if name not in settings.handlers:
            raise ConfigError(not_configured("handler", name, settings.handlers))
    with suppress(KeyboardInterrupt):
        asyncio.run(_tail(settings, handler, extension, call, as_json=as_json))


async def _tail(
    settings: Settings, handlers: Filter, extensions: Filter, calls: Filter, *, as_json: bool
) -> None:
    lines = Lines(Console(highlight=False))

    def is_wanted(extension: Sequence[str], call: str | None) -> bool:
        return (not extensions or any(each in extensions for each in extension)) and (
            not calls or (call or "") in calls or (call or "").partition("/")[2] in calls
        )

    def event(each: CallEvent) -> None:
        if not handlers and is_wanted(each.extensions, each.call):
            _print_json("event", each.as_dict()) if as_json else lines.event(each)

    def attempt(each: Attempt) -> None:
        if (not handlers or each["handler"] in handlers) and is_wanted(
            [each["extension"]], each["call"]
        ):
            _print_json("delivery", each) if as_json else lines.attempt(each)

    async with (
        opened(settings) as (inbox, _),
        watched(inbox, event, attempt, settings.tenant) as watching,
    ):
        if not as_json:
            note("Events and deliveries as they happen; Ctrl-C stops.")
            lines.legend()
        await watching()


def _print_json(kind: str, value: dict[str, Any]) -> None:
    typer.echo(json.dumps({kind: value}, default=str))
