"""The command line. Each command is a module of the same name."""

import errno
import gc
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from offhook.errors import ConfigError, did_you_mean
from offhook_cli.screen import fail, note, write_in_any_encoding

# In the order a new user needs them.
COMMANDS = {
    "demo": "Watch calls arrive and be delivered, without any setup.",
    "dev": "Run everything for development, and show events.",
    "init": "Write a first configuration and a secret.",
    "setup": "Register callbacks on the PBX; choose their handlers.",
    "tenants": "List, add, show and remove tenants.",
    "url": "Print or revoke the callback URLs of an extension.",
    "serve": "Run the receiver: accept the callbacks of the PBX.",
    "work": "Run the workers: deliver events to the handlers.",
    "reload": "Apply a changed configuration and code, or refuse it.",
    "console": "Run the console: pages and an API for people.",
    "presence": "Show which phones are registered, and their status.",
    "agents": "Show the agents of a queue; log one in or out, or pause one.",
    "pbx": "Manage phone call events on the PBX; place a call.",
    "sandbox": "Run a simulated PBX: UnifiedAPI, and calls placed on it.",
    "simulate": "Place simulated calls: send their callbacks.",
    "handlers": "List handlers and lookups, installed and configured.",
    "lookup": "Ask the lookups for the name of a number.",
    "status": "Show the progress of each handler, and what is wrong.",
    "doctor": "Check the whole installation, and say what to do.",
    "tail": "Show events and deliveries as they happen.",
    "calls": "List calls: who called whom, who answered, how it ended.",
    "missed": "List missed callers, and who called them back.",
    "call": "Show one call: its outcome, events and deliveries.",
    "deliveries": "List attempts at deliveries, newest first.",
    "dead": "List, retry and discard dead letters.",
    "replay": "Redeliver past events to a handler.",
    "forget": "Delete the position of a handler no longer configured.",
    "erase": "Delete the calls of a phone number, everywhere.",
    "quarantine": "List, show, deliver and delete refused callbacks.",
}


class Commands(TyperGroup):
    """Imports a command only when it runs, so that `offhook --help` stays fast."""

    def __init__(self, **attrs: Any) -> None:
        attrs["commands"] = {
            name: TyperCommand(name, help=sentence, rich_markup_mode=None)
            for name, sentence in COMMANDS.items()
        }
        super().__init__(**attrs)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        if name is None:  # a shell completes the line of a command that does not exist
            return None, None, rest
        return name, load(name), rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Print an expected error as one sentence, without a traceback."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            fail("\n".join(error.problems), code=2)
        except typer.BadParameter as error:
            error.message = _plain(error.message)
            raise
        except Exception as error:
            sentence = _about_redis(error)
            if sentence is None:
                raise
            fail(sentence)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"offhook {version('offhook')}")
        raise typer.Exit


def _documentation() -> str:
    """Where the pages are: the wheel's, or those of a checkout."""
    for folder in (Path(sys.prefix, "share", "offhook"), Path(__file__).parents[1]):
        page = folder / "docs" / "index.md"
        if page.exists():
            return f"Documentation: {page}"
    return "Documentation: docs/index.md in the source"


@app.callback(epilog=_documentation())
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
    write_in_any_encoding()
    try:
        try:
            app(prog_name="offhook")
        finally:
            sys.stdout.flush()
    except OSError as error:
        _check_output(error)
        raise


def _check_output(error: OSError) -> None:
    """Exit if the output cannot be written, without Python's second try when it ends."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        with suppress(OSError):
            note(f"the output cannot be written: {error.strerror}")
            sys.stderr.flush()
        os._exit(1)
    if error.errno == errno.EPIPE:  # the reader, such as `head`, has ended
        os._exit(1)


# Messages of pydantic, which typer uses, in the words of our own.
_PLAIN = {
    r"Value error, ": "",
    r"Input should be greater than or equal to (\S+)": r"must be \1 or more",
    r"Input should be less than or equal to (\S+)": r"must be \1 or less",
    r"Input should be a valid integer.*": "must be a whole number",
    r"Input should be a valid number.*": "must be a number",
}


def _plain(message: str) -> str:
    """A message about the value of an option, in plain words."""
    for pattern, words in _PLAIN.items():
        message = re.sub(pattern, words, message)
    if found := re.fullmatch(r"'(.*)' is not one of (.*)\.", message):
        message = message[:-1] + did_you_mean(found[1], re.findall("'([^']+)'", found[2]))
    return message


def load(name: str) -> Any:
    """Import a command: the function or group that has the name of its module."""
    with _quick_imports():
        found = getattr(import_module(f"offhook_cli.{name}"), name)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(rich_markup_mode=None, add_completion=False)
        found.command(name)(function)
    return typer.main.get_command(found)


_METRICS = "opentelemetry.sdk.metrics"


@contextmanager
def _quick_imports() -> Iterator[None]:
    """Import in three quarters of the time: without looking for garbage, of which there is none.

    And without OpenTelemetry's SDK, which redis-py would load for metrics of its own.
    """
    if {"redis", _METRICS} & sys.modules.keys():
        yield
        return
    sys.modules[_METRICS] = None  # type: ignore[assignment]
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        del sys.modules[_METRICS]


def _about_redis(error: Exception) -> str | None:
    """Describe a Redis error and how to fix it; None for any other error."""
    from redis import exceptions

    if not isinstance(error, exceptions.RedisError):
        return None
    from offhook.operations.server_check import fault
    from offhook.settings import load_settings

    return fault(error, load_settings())
