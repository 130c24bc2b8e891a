"""`offhook console`: run the console; make users and tokens for it."""

from contextlib import suppress
from typing import Annotated, get_args

import typer

from offhook.errors import ConfigError
from offhook.provisioning.files import quoted, quoted_list
from offhook.settings import load_settings
from offhook.settings.console_table import NO_OPERATOR, Role, Scope
from offhook_cli.console_walls import wall
from offhook_cli.options import Host, Port
from offhook_cli.screen import fail, note
from offhook_cli.startup import (
    bound,
    check_inbox,
    check_server,
    console_packages,
    start_logging,
)

console = typer.Typer(invoke_without_command=True, add_completion=False, rich_markup_mode=None)
console.add_typer(wall, name="wall")

_SHORTEST = 10  # characters of a password
_ROLES: tuple[str, ...] = get_args(Role)
_SCOPES: tuple[str, ...] = get_args(Scope)

UserName = Annotated[
    str,
    typer.Argument(help="The user's name, such as ruth or ruth@example.com.", metavar="NAME"),
]


@console.callback()
def _console(context: typer.Context, host: Host = "127.0.0.1", port: Port = 8090) -> None:
    """Run the console: pages, an API and a live feed for people.

    Shows calls as they happen, every call, handlers, dead letters and the
    quarantine. Nothing done there slows a callback: it is a process of its
    own. Users are in [console.users] of offhook.toml; `offhook console user`
    makes one, and SIGHUP or `offhook reload` applies a changed configuration.
    For TLS, put a proxy in front of it.

    \b
    Examples:
      offhook console user ruth --role operator
      offhook console
      offhook console --host 0.0.0.0 --port 8090
    """
    if context.invoked_subcommand is not None:
        return
    from offhook_cli.console_server import run

    settings = load_settings()
    start_logging(settings)
    check_inbox(settings)
    listening = bound(host, port)
    check_server(settings)
    if not settings.console.users:
        note("There are no users yet: `offhook console user NAME` makes one.")
    with suppress(KeyboardInterrupt):  # uvicorn raises it when it has stopped
        if not run(settings, listening, host, port):
            raise typer.Exit(1)


@console.command()
def user(
    name: UserName,
    role: Annotated[
        str,
        typer.Option(
            help="viewer (numbers masked), agent (own extensions), supervisor or operator.",
            metavar="ROLE",
        ),
    ] = "operator",
    extension: Annotated[
        list[str] | None,
        typer.Option(help="An extension of the user; may be repeated.", metavar="EXTENSION"),
    ] = None,
    tenant: Annotated[
        str, typer.Option(help="The tenant whose calls the user sees.", metavar="TENANT")
    ] = "",
) -> None:
    """Print the table of a user for offhook.toml. Asks for the password.

    \b
    Examples:
      offhook console user ruth --role operator
      offhook console user tom --role agent --extension '0003*211' >> offhook.toml
      offhook console user tim --role supervisor --tenant acme
    """
    _check_choice("--role", role, _ROLES)
    _check_user(name)
    if tenant and role == "operator":
        raise ConfigError(f"--role: {NO_OPERATOR}")
    from offhook_console.passwords import hash_password

    password = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    if len(password) < _SHORTEST:
        fail(f"The password is too short: choose {_SHORTEST} characters or more.", code=2)
    with console_packages():
        hashed = hash_password(password)
    lines = [
        "",
        f"[{_table(f'{tenant}/{name}' if tenant else name)}]",
        f'role = "{role}"',
        f'password = "{hashed}"',
    ]
    if extension:
        lines.append(f"extensions = {quoted_list(extension)}")
    typer.echo("\n".join(lines))
    note("Add this table to offhook.toml, then run `offhook reload`.")


@console.command()
def token(
    name: UserName,
    label: Annotated[
        str, typer.Argument(help="A name for the token, such as reports.", metavar="TOKEN")
    ],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="calls, numbers, live, dial, deliveries, repair or people; may be repeated.",
            metavar="SCOPE",
            show_default="calls",
        ),
    ] = None,
) -> None:
    """Make an API token of a user: print it, and its table for offhook.toml.

    The token is shown once; the configuration has only its hash.

    \b
    Examples:
      offhook console token ruth reports --scope calls --scope numbers
    """
    scopes = scope or ["calls"]
    for each in scopes:
        _check_choice("--scope", each, _SCOPES)
    _check_user(name)
    from offhook_console.passwords import make_token

    made, hashed = make_token()
    typer.echo(
        f"\n[{_table(name)}.tokens.{quoted(label)}]\n"
        f'hash = "{hashed}"\n'
        f"scopes = {quoted_list(scopes)}"
    )
    note(f"The token, which is not shown again: {made}")


def _table(name: str) -> str:
    """The table of a user in offhook.toml: of one's own, or of TENANT/NAME."""
    tenant, slash, own = name.partition("/")
    if slash:
        return f"tenants.{quoted(tenant)}.users.{quoted(own)}"
    return f"console.users.{quoted(name)}"


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{option}: {value!r} is not one of {', '.join(choices)}")


def _check_user(name: str) -> None:
    if not name or not name.isprintable():
        raise ConfigError(f"{name!r} is no name for a user")
