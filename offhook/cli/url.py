"""`offhook url`: the callback URLs of an extension."""

from typing import Annotated
from urllib.parse import urlsplit

import typer

from offhook.cli.screen import note
from offhook.event import EventType
from offhook.settings import load_settings
from offhook.token import callback_url

_HERE = ("127.0.0.1", "localhost", "::1")


def url(
    pbx: Annotated[str, typer.Argument(help="A name for the PBX, such as main.")],
    extension: Annotated[str, typer.Argument(help="Such as 0003*210.")],
    event: Annotated[
        EventType | None, typer.Option(help="Only this event type, and only its URL.")
    ] = None,
) -> None:
    """Print the callback URLs of an extension, to register them on the PBX by hand.

    One URL for each event type: the PBX says in no other way what happened.
    Whoever knows a URL can send events: treat it as a password.

    \b
    Examples:
      offhook url main '0003*210'
      offhook url main '0003*210' --event hangup
    """
    settings = load_settings()
    secret = settings.secret.get_secret_value()
    for each in [event] if event else EventType:
        found = callback_url(settings.public_url, secret, pbx, extension, each.value)
        typer.echo(found if event else f"{each.value:<10} {found}")
    if urlsplit(settings.public_url).hostname in _HERE:
        note("Only a PBX on this machine reaches these: set public_url to what the PBX can reach.")
