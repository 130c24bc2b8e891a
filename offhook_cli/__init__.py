"""The command line. Each command is a module of its own, named as the command is."""

from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from offhook.errors import ConfigError
from offhook_cli.screen import fail

# In the order of a first day, each with what it is for.
COMMANDS = {
    "demo": "See calls arrive and be delivered, with nothing to set up.",
    "init": "Write a configuration and a secret to begin with.",
    "setup": "Set up extensions on the PBX, and say who gets their events.",
    "url": "Print the callback URLs of an extension.",
    "serve": "Run the receiver: take the callbacks of the PBX.",
    "work": "Run the workers: deliver events to the handlers.",
    "presence": "Show which phones are registered, and what they do.",
    "agents": "Show the agents of a queue; log one in or out, or pause one.",
    "sandbox": "Run a PBX made of code: UnifiedAPI, and calls placed on it.",
    "simulate": "Place simulated calls, as a PBX would.",
    "handlers": "List the handlers and lookups, installed and configured.",
    "lookup": "Ask the lookups whose number it is.",
    "status": "Show how far each handler has got, and what is in the way.",
    "calls": "List calls: who called whom, who answered, how it ended.",
    "call": "Show one call: its legs, and its events in their order.",
    "dead": "Look at dead letters, send them again or discard them.",
    "replay": "Let a handler have past events again.",
    "forget": "Delete the cursor of a handler that is configured no more.",
    "quarantine": "Look at callbacks that were refused.",
}


class Commands(TyperGroup):
    """Imports a command when it is called: `offhook --help` waits for none of them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """The name and the help of a command, without its code."""
        if cmd_name not in COMMANDS:
            return None
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name], rich_markup_mode=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, _load(str(name)), rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command. What goes wrong as one may expect is told in a sentence."""
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
    file that OFFHOOK_CONFIG names; environment variables win over it.

    \b
    Begin with:
      offhook demo              see it work
      offhook init              write a configuration of your own
      offhook COMMAND --help    what a command does, with examples

    Exit codes: 0 all is well, 1 something failed or is wrong, 2 the command
    or the configuration is not understood.
    """


def main() -> None:
    """The entry point."""
    app(prog_name="offhook")


def _load(name: str) -> Any:
    """The command itself: the function, or the group of commands, that its module is named for."""
    found = getattr(import_module(f"offhook_cli.{name}"), name)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(rich_markup_mode=None, add_completion=False)
        found.command(name)(function)
    return typer.main.get_command(found)


def _about_redis(error: Exception) -> str | None:
    """What to do when the error says that Redis does not do its part; None for any other."""
    from redis import exceptions

    from offhook.connection import shown
    from offhook.settings import load_settings

    if not isinstance(error, exceptions.RedisError):
        return None
    server = f"Redis at {shown(load_settings().redis_url)}"
    if isinstance(error, exceptions.AuthenticationError):
        return f"{server} does not accept the password in redis_url"
    if isinstance(error, exceptions.BusyLoadingError):
        return f"{server} is still reading its data: try again in a moment"
    if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError)):
        return f"{server} does not answer: start it, or set redis_url"
    return f"{server} says: {error}"
