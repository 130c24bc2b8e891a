"""Options that several commands share."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from offhook.errors import ConfigError, not_configured
from offhook.event import tenant_of
from offhook.settings import Settings, load_settings
from offhook_cli import completion

Json = Annotated[bool, typer.Option("--json", help="Print JSON only.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Limit = Annotated[int, typer.Option(min=1, help="Maximum number of rows.", metavar="N")]
After = Annotated[
    str | None,
    typer.Option(help="Continue after the entry with this id.", metavar="ID"),
]
MANY = 1000  # entries of a list, unless --limit says otherwise
PbxName = Annotated[
    str | None,
    typer.Option(
        "--pbx",
        help="The PBX; optional if only one is configured.",
        metavar="NAME",
        autocompletion=completion.pbxs,
    ),
]
Tenant = Annotated[
    str,
    typer.Option(
        "--tenant",
        help="Tenant to work on.",
        metavar="NAME",
        show_default="the operator",
        autocompletion=completion.tenants,
    ),
]
UserId = Annotated[
    str | None,
    typer.Option(
        "--user",
        help="The user who owns the extensions: @me, @owner or an id.",
        show_default="the PBX's setting `user`",
        metavar="USER",
    ),
]

Host = Annotated[str, typer.Option(metavar="HOST", help="The address to listen on.")]
Port = Annotated[int, typer.Option(min=1, max=65535, metavar="PORT", help="The port to listen on.")]

_AGO = re.compile(r"(\d+)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def settings_of(tenant: str) -> Settings:
    """The configuration as it holds for a tenant; empty: for the operator.

    Raises:
        ConfigError: the configuration is wrong, or has no such tenant.
    """
    settings = load_settings()
    if tenant and tenant not in settings.tenants:
        raise ConfigError(not_configured("tenant", tenant, settings.tenants))
    return settings.of(tenant)


def full_name(settings: Settings, handler: str) -> str:
    """The full name of a handler: with or without its tenant, the one of these settings."""
    prefix = f"{settings.tenant}/" if settings.tenant else ""
    return prefix + handler.removeprefix(prefix)


def call_names(settings: Settings, call: str) -> list[str]:
    """The names that a call of this tenant may have, by its id, with its PBX or without."""
    prefix = f"{settings.tenant}:" if settings.tenant else ""
    call = call.removeprefix(prefix)
    names = [prefix + call, *(f"{prefix}{pbx}/{call}" for pbx in settings.pbx or ["main"])]
    # Skip names that belong to another tenant.
    return [name for name in names if tenant_of(name) == settings.tenant]


def id_argument(values: Callable[[], list[str]] | None = None) -> Any:
    """An argument that takes an id; `values` are those that a shell completes."""
    return typer.Argument(help="The id that `list` shows.", metavar="ID", autocompletion=values)


def ids_argument(values: Callable[[], list[str]] | None = None) -> Any:
    """Arguments that take ids, as above."""
    return typer.Argument(
        help="Ids that `list` shows.", metavar="ID", show_default=False, autocompletion=values
    )


def since_option(help: str, default: str | bool = False) -> Any:  # noqa: A002 - typer's word
    """An option that takes a moment, see `moment`."""
    return typer.Option(
        parser=moment,
        metavar="TIME",
        show_default=default,
        help=f"{help} since: 2h, 3d (ago), 2026-05-01T14:00 (local time).",
    )


def group(help: str | None = None) -> typer.Typer:  # noqa: A002 - typer's word
    """A command with subcommands."""
    return typer.Typer(help=help, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


def moment(text: str) -> datetime:
    """Parse `2h` (ago), `2026-05-01` or `2026-05-01 14:00`; local time unless it has an offset.

    Raises:
        typer.BadParameter: not a time, or in the future.
    """
    now = datetime.now(UTC)
    found = _AGO.fullmatch(text.strip())
    try:
        if found:
            return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
        read = datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{text!r} is not a time: write 90s, 30m, 2h, 3d, 1w (ago), 2026-05-01 "
            "or 2026-05-01T14:00"
        ) from error
    if read > now:
        raise typer.BadParameter(f"{text!r} is in the future")
    return read
