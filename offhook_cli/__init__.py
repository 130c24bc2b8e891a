"""The command line. Each command is a module of the same name."""

from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from offhook.errors import ConfigError
from offhook_cli.screen import fail

# In the order a new user needs them.
COMMANDS = {
    "demo": "Watch calls arrive and be delivered, without any setup.",
    "dev": "Run everything for development, and show events.",
    "init": "Write a first configuration and a secret.",
    "setup": "Register callbacks on the PBX; choose their handlers.",
    "url": "Print the callback URLs of an extension.",
    "serve": "Run the receiver: accept the callbacks of the PBX.",
    "work": "Run the workers: deliver events to the handlers.",
    "presence": "Show which phones are registered, and their status.",
    "agents": "Show the agents of a queue; log one in or out, or pause one.",
    "pbx": "Manage phone call events on the PBX, whoever made them.",
    "sandbox": "Run a simulated PBX: UnifiedAPI, and calls placed on it.",
    "simulate": "Place simulated calls: send their callbacks.",
    "handlers": "List handlers and lookups, installed and configured.",
    "lookup": "Ask the lookups for the name of a number.",
    "status": "Show the progress of each handler, and what is wrong.",
    "tail": "Show events and deliveries as they happen.",
    "calls": "List calls: who called whom, who answered, how it ended.",
    "call": "Show one call: its outcome, its legs and its events.",
    "dead": "List, retry and discard dead letters.",
    "replay": "Redeliver past events to a handler.",
    "forget": "Delete the position of a handler no longer configured.",
    "erase": "Delete the calls of a phone number, everywhere.",
    "quarantine": "List, show, deliver and delete refused callbacks.",
}


class Commands(TyperGroup):
    """Imports a command only when it runs, so that `offhook --help` stays fast."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """Return a command's name and help, without importing it."""
        if cmd_name not in COMMANDS:
            return None
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name], rich_markup_mode=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, _load(str(name)), rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Print an expected error as one sentence, without a traceback."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            fail("\n".join(error.problems), code=2)
        except Exception as error:
            sentence = _about_redis(error)
            if sentence is None:
                raise
            fail(sentence)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"offhook {version('offhook')}")
        raise typer.Exit


@app.callback()
def _offhook(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Receive the phone call events of a VoipNow PBX and deliver them to handlers.

    Settings come from offhook.toml in the working directory, or from the
    file OFFHOOK_CONFIG names. Environment variables override them.

    \b
    Start with:
      offhook demo              watch it work
      offhook dev               try your own handlers
      offhook init              write your own configuration
      offhook COMMAND --help    help for a command, with examples

    Exit codes: 0 success, 1 a failure or a problem, 2 wrong usage or
    configuration.
    """


def main() -> None:
    """The entry point."""
    app(prog_name="offhook")


def _load(name: str) -> Any:
    """Import a command: the function or group that has the name of its module."""
    found = getattr(import_module(f"offhook_cli.{name}"), name)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(rich_markup_mode=None, add_completion=False)
        found.command(name)(function)
    return typer.main.get_command(found)


def _about_redis(error: Exception) -> str | None:
    """Describe a Redis error and how to fix it; None for any other error."""
    from redis import exceptions

    if not isinstance(error, exceptions.RedisError):
        return None
    from offhook.operations.server_check import about
    from offhook.settings import load_settings

    return about(error, load_settings())
