"""`offhook url`: the callback URLs of an extension, and how to revoke them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer
from typer.core import TyperGroup

from offhook.callback_url import RevokedUrls, callback_url, revoke, revoked_urls
from offhook.dialects.telphin import TELPHIN
from offhook.errors import ConfigError, not_configured
from offhook.event import CALLBACKS, EventType
from offhook.settings import Settings, load_settings
from offhook_cli import completion
from offhook_cli.options import Yes
from offhook_cli.screen import note

_HERE = ("127.0.0.1", "localhost", "::1")

Pbx = Annotated[
    str,
    typer.Argument(
        metavar="PBX",
        help="A name for the PBX, such as main.",
        autocompletion=completion.pbxs,
    ),
]
Extension = Annotated[
    str,
    typer.Argument(
        metavar="EXTENSION", help="Such as 0003*210.", autocompletion=completion.extensions
    ),
]
Event = Annotated[
    Literal["dial-in", "dial-out", "hangup", "answer-in", "answer-out"] | None,
    typer.Option(help="Only the URL of this event type."),
]


class _PrintByDefault(TyperGroup):
    """Lets `offhook url PBX EXTENSION` mean `offhook url print PBX EXTENSION`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["print", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        pbx = self.commands["print"].params[0]
        return [*super().shell_complete(ctx, incomplete), *pbx.shell_complete(ctx, incomplete)]


url = typer.Typer(
    cls=_PrintByDefault, no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@url.callback()
def _url() -> None:
    """Print or revoke the callback URLs of an extension.

    \b
    Examples:
      offhook url main '0003*210'
      offhook url main '0003*210' --event hangup
      offhook url revoke main '0003*210'
    """


@url.command("print")
def print_(pbx: Pbx, extension: Extension, event: Event = None) -> None:
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
    _print(settings, revoked_urls(settings.revoked_file), pbx, extension, event)


@url.command("revoke")
def revoke_(pbx: Pbx, extension: Extension, event: Event = None, yes: Yes = False) -> None:
    """Revoke the callback URLs of an extension, and print the new ones.

    Use it if a URL has leaked. Receivers on this machine refuse the old URLs
    within seconds; copy the file that the setting `revoked` names to other
    machines. Then register the new URLs: `offhook setup EXTENSION` does it
    for extensions that it has set up. Until then the PBX's callbacks are
    refused.

    \b
    Examples:
      offhook url revoke main '0003*210'
      offhook url revoke main '0003*210' --event hangup --yes
    """
    settings = load_settings()
    types = _types(settings, pbx, event)
    for each in types:  # refuses names that no URL can have
        callback_url(settings.public_url, "", pbx, extension, each)
    if not yes:
        typer.confirm(f"Revoke {len(types)} callback URLs of {pbx}/{extension}?", abort=True)
    revoked = revoke(settings.revoked_file, [(pbx, extension, each) for each in types])
    _print(settings, revoked, pbx, extension, event)
    note("Register these on the PBX: until then its callbacks are refused.")


def _types(settings: Settings, pbx: str, event: str | None) -> Sequence[str]:
    if pbx in settings.pbx and settings.pbx[pbx].dialect == TELPHIN:
        if event is not None:
            raise ConfigError(f"--event: {pbx} has one URL for all event types; omit the option")
        return [TELPHIN]
    return [each.value for each in CALLBACKS if event in (None, EventType(each))]


def _print(
    settings: Settings, revoked: RevokedUrls, pbx: str, extension: str, event: str | None
) -> None:
    secret = settings.secret.get_secret_value()
    types = _types(settings, pbx, event)
    for each in types:
        version = revoked.version(pbx, extension, each)
        found = callback_url(settings.public_url, secret, pbx, extension, each, version)
        typer.echo(found if len(types) == 1 else f"{each:<10} {found}")
    if settings.pbx and pbx not in settings.pbx:
        note(f"! {not_configured('PBX', pbx, settings.pbx)}")
    if urlsplit(settings.public_url).hostname in _HERE:
        note("Only a PBX on this machine can reach these: set public_url to a public address.")
