"""`offhook url`: the callback URLs of an extension."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

import typer

from offhook.callback_url import callback_url
from offhook.dialects.telphin import TELPHIN
from offhook.errors import ConfigError
from offhook.event import CALLBACKS, EventType
from offhook.settings import load_settings
from offhook_cli.screen import note

_HERE = ("127.0.0.1", "localhost", "::1")


def url(
    pbx: Annotated[str, typer.Argument(metavar="PBX", help="A name for the PBX, such as main.")],
    extension: Annotated[str, typer.Argument(metavar="EXTENSION", help="Such as 0003*210.")],
    event: Annotated[
        Literal["dial-in", "dial-out", "hangup", "answer-in", "answer-out"] | None,
        typer.Option(help="Print only the URL of this event type."),
    ] = None,
) -> None:
    """Print the callback URLs of an extension, to register them on the PBX by hand.

    Each event type has its own URL, because a VoipNow callback does not
    name its event type. A PBX with `dialect = "telphin"` has one URL for all.
    Anyone who knows a URL can send events: treat it as a password.

    \b
    Examples:
      offhook url main '0003*210'
      offhook url main '0003*210' --event hangup
    """
    settings = load_settings()
    secret = settings.secret.get_secret_value()
    if pbx in settings.pbx and settings.pbx[pbx].dialect == TELPHIN:
        if event is not None:
            raise ConfigError(f"--event: {pbx} has one URL for all event types; omit the option")
        typer.echo(callback_url(settings.public_url, secret, pbx, extension, TELPHIN))
    else:
        for each in CALLBACKS if event is None else [EventType(event)]:
            found = callback_url(settings.public_url, secret, pbx, extension, each.value)
            typer.echo(found if event else f"{each.value:<10} {found}")
    if settings.pbx and pbx not in settings.pbx:
        note(f"! no PBX is configured as {pbx!r}; configured: {', '.join(settings.pbx)}")
    if urlsplit(settings.public_url).hostname in _HERE:
        note("Only a PBX on this machine can reach these: set public_url to a public address.")
