"""`offhook handlers pause`, `resume`, `test`, `would-get`: about a handler while it runs."""

import asyncio
import getpass
import os
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
import typer

from offhook.connection import opened
from offhook.errors import ConfigError, not_configured
from offhook.event import EventType
from offhook.extensions import UNKNOWN, Extensions, ExtensionSettings
from offhook.inbox.record_part import AttemptOutcome
from offhook.operations.filter_question import FilterAnswer, ask_filter, other_filter, span
from offhook.operations.pausing import set_paused
from offhook.operations.trials import outcome_of, send_trial
from offhook.settings import Settings, load_settings
from offhook.testing import sample_event
from offhook_cli import completion
from offhook_cli.live import ms
from offhook_cli.options import Json, Tenant, full_name, settings_of
from offhook_cli.screen import counted, fail, note, print_json, print_table

Configured = Annotated[
    str,
    typer.Argument(
        help="A configured handler.", metavar="NAME", autocompletion=completion.handlers
    ),
]


def pause(name: Configured, tenant: Tenant = "") -> None:
    """Deliver nothing to a handler until it is resumed.

    Takes effect within two seconds; running deliveries are finished. Its
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


def send_test(
    name: Configured,
    event: Annotated[
        EventType | None,
        typer.Option(
            help="The event type, such as hangup or call-ended.",
            show_default="the first that the handler gets",
            metavar="TYPE",
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for the outcome.")
    ] = 10.0,
    tenant: Tenant = "",
) -> None:
    """Send a made-up event to a handler, and to no other.

    A worker delivers it with the running configuration, so `offhook work` must
    run. The target gets it like a real event. `offhook deliveries --call`
    shows the outcome later, too.

    Exits with 1 unless it was delivered.

    \b
    Examples:
      offhook handlers test crm
      offhook handlers test crm --event call-ended
    """
    settings, handler = configured(name, tenant)

    async def run() -> None:
        async with opened(settings) as (inbox, _):
            sent = await send_trial(
                inbox, handler, settings.handlers[handler], user(), sample_event, event
            )
            note(f"Sent {sent.type} of the call {sent.call} to {handler}.")
            made = await outcome_of(inbox, handler, sent.call, wait)
        if made is None:
            fail(f"No attempt within {wait:g} s: `offhook status` says what {handler} waits for.")
        said = f": {made.answer}" if made.answer else ""
        if made.outcome is not AttemptOutcome.DELIVERED:
            fail(f"{handler} did not deliver it{said}")
        typer.echo(f"{handler} delivered it in {ms(made.took)}{said}")

    asyncio.run(run())


def would_get(
    name: Configured,
    events: Annotated[
        str | None,
        typer.Option(
            help="Event types and groups, separated by commas; '' for the handler's own choice.",
            show_default="as configured",
            metavar="LIST",
        ),
    ] = None,
    extensions: Annotated[
        str | None,
        typer.Option(
            help="Patterns of extensions, separated by commas; '' for all.",
            show_default="as configured",
            metavar="LIST",
        ),
    ] = None,
    of: Annotated[
        Literal["1h", "today", "yesterday", "7d"],
        typer.Option(help="The time from which to count events."),
    ] = "yesterday",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Count what a handler would have got with another filter. Changes nothing.

    Reads the events in the inbox, for three seconds at most.

    \b
    Examples:
      offhook handlers would-get crm --events calls
      offhook handlers would-get crm --extensions '0003*2??,0003*500' --of 7d
    """
    settings, handler = configured(name, tenant)
    asked = other_filter(handler, settings.handlers[handler], events, extensions)
    since, until = span(of, datetime.now(UTC))

    async def run() -> FilterAnswer:
        async with opened(settings) as (inbox, _):
            known = await Extensions(inbox.redis).all()

            def extension(pbx: str, number: str) -> ExtensionSettings:
                return known.get((pbx, number), UNKNOWN)

            return await ask_filter(inbox, load_settings(), asked, extension, since, until)

    answer = asyncio.run(run())
    if as_json:
        print_json(msgspec.to_builtins(answer))
        return
    if answer.types:
        rows = [[kind, str(number)] for kind, number in answer.types.items()]
        print_table("event", "number", rows=rows, right=["number"])
    typer.echo(
        f"Of {counted(answer.looked, 'event')} {handler} would have got {answer.would_get}; it got "
        f"{answer.got}: {answer.more} more, {answer.fewer} fewer."
    )
    if answer.gained:
        new = ", ".join(f"{number} of {each}" for each, number in answer.gained.items())
        typer.echo(f"New: {new}.")
    if not answer.complete:
        note("There are too many events to look at all of them.")


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
