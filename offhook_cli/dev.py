"""`offhook dev`: run a whole installation for development, and show what happens in it."""

import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console

from offhook.connection import connect
from offhook.errors import ConfigError, OffhookError
from offhook.inbox import Inbox
from offhook.plugins import check_all
from offhook.provisioning.files import check_extension
from offhook.settings import Settings, config_path, load_settings
from offhook.tasks import end
from offhook_cli.embedded_server import EmbeddedServer, free_port
from offhook_cli.live import Lines, watched
from offhook_cli.local_processes import (
    process,
    start,
    stop,
    temporary_folder,
    until_answers,
    write_pbx,
)
from offhook_cli.reloading import EVERY, differing, files, named
from offhook_cli.startup import console_packages
from offhook_console.passwords import hash_password
from unifiedapi.sandbox.scenarios import Scenario

SPEED = 20.0  # a call of a minute lasts three seconds
SCENARIOS = (Scenario.ANSWERED, Scenario.MISSED, Scenario.OUTGOING, Scenario.BUSY)
_INFO = re.compile(rb"[0-9-]+ [0-9:,]+ INFO ")

# Without a configuration in this folder: a handler whose result can be looked at.
_CONFIG = """\
secret = "{secret}"
settle = 1

[handlers.log]                  # a line of JSON for every event
use = "file"
events = ["raw", "calls"]
options.path = "events.jsonl"
"""


def dev(
    extensions: Annotated[
        str,
        typer.Option(help="Phones of the sandbox PBX, separated by commas.", metavar="LIST"),
    ] = "0003*210,0003*211,0003*212",
    reload: Annotated[
        bool,
        typer.Option(
            "--reload", help="Restart the workers when a file next to offhook.toml changes."
        ),
    ] = False,
) -> None:
    """Run everything for development, and show events as they happen.

    Starts a Valkey server, a sandbox PBX, the receiver, the workers and the
    console, on this machine only, registers the callbacks, and places a call. In a
    terminal, Enter places another one. Ctrl-C stops everything.

    Uses the handlers and lookups of offhook.toml, if there is one: they
    deliver to their real targets. Its server, PBXs, journal and public_url are
    replaced. Nothing is kept.

    \b
    Examples:
      offhook dev
      offhook dev --reload
      offhook dev --extensions '0004*100,0004*101'
    """
    phones = [check_extension(each) for each in extensions.split(",")]
    console = Console(highlight=False)
    try:
        with temporary_folder("offhook-dev-") as folder:
            asyncio.run(_dev(Lines(console), folder, phones, reload=reload))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("\nStopped.")
    except OffhookError as error:
        if isinstance(error, ConfigError):
            raise
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


async def _dev(lines: Lines, folder: Path, phones: list[str], *, reload: bool) -> None:
    _stop_on_signals()
    with EmbeddedServer(folder / "valkey") as server:
        receiver, pbx, console = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
        password = secrets.token_urlsafe(12)
        own = config_path().exists()
        if not own:
            config = folder / "offhook.toml"
            config.write_text(_CONFIG.format(secret=secrets.token_urlsafe(32)))
            os.environ["OFFHOOK_CONFIG"] = str(config)
        secret = write_pbx(folder / "pbx.toml", phones)
        pbxs = _pbx_names()
        os.environ |= {
            "OFFHOOK_REDIS_URL": server.url,
            "OFFHOOK_RQ_URL": server.url,
            "OFFHOOK_PUBLIC_URL": receiver,
            "OFFHOOK_JOURNAL": str(folder / "journal"),
            "OFFHOOK_DURABILITY": "server",
            "OFFHOOK_CONSOLE": json.dumps({"users": {"dev": _console_user(password, phones)}}),
            "OFFHOOK_PBX": json.dumps({name: _sandbox_table(pbx, secret) for name in pbxs}),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        settings = load_settings()
        _check(settings)
        _introduce(lines, settings, own=own)
        port = pbx.rpartition(":")[2]
        sandbox = ("sandbox", "start", "--port", port, "--file", str(folder / "pbx.toml"))
        async with (
            connect(server.url) as redis,
            # Before the workers start: they look once a second whether a client watches.
            watched(Inbox(redis, settings.partitions), lines.event, lines.attempt) as watching,
        ):
            with (
                process(folder / "sandbox.log", *sandbox) as running,
                Processes(folder, receiver, console) as processes,
                ExitStack() as starting,
            ):
                # In a terminal only.
                starting.enter_context(lines.console.status("Starting: this takes some seconds"))
                await until_answers(f"{pbx}/sandbox/tally", running, "the sandbox PBX", folder)
                await asyncio.gather(_set_up(pbxs[0], folder), processes.until_ready())
                async with (
                    _also(processes.show(lines)),
                    _also(_calls(lines, pbx, phones)),
                    _also(processes.reload(lines) if reload else asyncio.sleep(0)),
                ):
                    starting.close()
                    lines.print(
                        _running(folder, pbx, server.url, console, password, own=own),
                        soft_wrap=True,
                    )
                    lines.legend()
                    await watching()


def _stop_on_signals() -> None:
    """End like after Ctrl-C, with all processes."""
    running = asyncio.current_task()
    assert running is not None  # noqa: S101
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)


def _sandbox_table(pbx: str, secret: str) -> dict[str, object]:
    """Return the table of a PBX that replaces every way to sign in to the real one."""
    return {
        "host": pbx,
        "client_id": "offhook",
        "client_secret": secret,
        "insecure": True,
        "token": "",
        "ca_file": "",
        "user": "@me",
    }


def _console_user(password: str, phones: list[str]) -> dict[str, object]:
    """Return the table of a user who may sign in to the console, besides those of the file."""
    with console_packages():
        hashed = hash_password(password)
    return {"role": "operator", "password": hashed, "extensions": phones[:1]}


def _pbx_names() -> list[str]:
    """Return the PBXs to replace: those of the configuration that have an API."""
    tables: dict[str, Any] = {}
    with suppress(OSError, ValueError):  # `load_settings` reports it
        tables = tomllib.loads(config_path().read_text("utf-8")).get("pbx", {})
    with_api = [name for name, each in tables.items() if isinstance(each, dict) and "host" in each]
    return with_api or ["sandbox" if "main" in tables else "main"]


def _check(settings: Settings) -> None:
    if problems := check_all().problems:
        raise ConfigError(problems)
    if not settings.handlers:
        raise ConfigError(
            f"no handler is configured: add a [handlers.NAME] table to {config_path()}; "
            "`offhook handlers` lists the installed ones"
        )


def _introduce(lines: Lines, settings: Settings, *, own: bool) -> None:
    handlers = ", ".join(f"{name} ({each.use})" for name, each in settings.handlers.items())
    if own:
        lines.print(f"With the handlers of {config_path()}, and their real targets: {handlers}.")
    else:
        lines.print(
            "There is no offhook.toml here: every event goes to a file. "
            "`offhook init` writes a configuration."
        )


def _running(
    folder: Path, pbx: str, redis_url: str, console: str, password: str, *, own: bool
) -> str:
    use = f"OFFHOOK_CONFIG={config_path()}"
    if own:
        use = f"OFFHOOK_REDIS_URL={redis_url} OFFHOOK_RQ_URL={redis_url}"
    also = "" if own else f"\nThe events are in {folder}/events.jsonl."
    enter = "Enter places another call; " if sys.stdin.isatty() else ""
    return (
        f"\n[bold]Running.[/] {enter}Ctrl-C stops. The logs are in {folder}.{also}\n"
        f"In a browser: {console} (sign in as dev with the password {password})\n"
        "In another terminal:\n"
        f"  export {use}; offhook status\n"
        f"  offhook sandbox call missed --speed 20 --url {pbx}"
    )


class Processes:
    """The receiver, the workers and the console."""

    def __init__(self, folder: Path, receiver: str, console: str) -> None:
        self._folder = folder
        self._receiver = receiver
        self._console = console
        self._commands = {
            "serve": ("serve", "--port", receiver.rpartition(":")[2]),
            "work": ("work",),
            "console": ("console", "--port", console.rpartition(":")[2]),
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Processes":
        for name in self._commands:
            self._start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("console", "work", "serve"):
            stop(self._running[name])

    def _start(self, name: str) -> None:
        self._running[name] = start(self._folder / f"{name}.log", *self._commands[name])

    async def until_ready(self) -> None:
        url = f"{self._receiver}/health/ready"
        await until_answers(url, self._running["serve"], "the receiver", self._folder)
        sign_in = f"{self._console}/sign-in"
        await until_answers(sign_in, self._running["console"], "the console", self._folder)

    async def show(self, lines: Lines) -> None:
        """Print what the processes log and print, but for the steps of normal work."""
        files = {name: (self._folder / f"{name}.log").open("rb") for name in self._commands}
        while True:
            for name, file in files.items():
                for line in iter(file.readline, b""):
                    if not _INFO.match(line):
                        text = line.decode("utf-8", "replace").rstrip()
                        lines.print(f"[dim]{name:>5} |[/] ", end="")
                        lines.print(text, markup=False, soft_wrap=True)
            await asyncio.sleep(0.1)

    async def reload(self, lines: Lines) -> None:
        """Restart the workers when a plugin changes, and both when the configuration does."""
        before = files()
        while True:
            await asyncio.sleep(EVERY)
            now = await asyncio.to_thread(files)
            changed, before = differing(before, now), now
            if not changed:
                continue
            lines.print(f"[bold]{named(changed)}[/]")
            answer = await asyncio.to_thread(_offhook, "handlers", "--json")
            problems = json.loads(answer.stdout or "{}").get("problems", [])
            for problem in problems:
                lines.print(f"! {problem}", markup=False, style="yellow")
            if config_path().absolute() in changed:
                await self._restart("serve")
                await self._restart("console")
            await self._restart("work")

    async def _restart(self, name: str) -> None:
        await asyncio.to_thread(stop, self._running[name])
        self._start(name)


def _offhook(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "offhook_cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


async def _set_up(pbx: str, folder: Path) -> None:
    """Register the callbacks of the sandbox PBX's phones."""
    done = await asyncio.to_thread(_offhook, "setup", "--all", "--yes", "--pbx", pbx)
    if done.returncode:
        raise OffhookError(f"offhook setup failed: {done.stderr.strip()}; the logs are in {folder}")


async def _calls(lines: Lines, pbx: str, phones: list[str]) -> None:
    """Place a call, and another one for each line of standard input if that is a terminal."""
    wanted = asyncio.Event()
    wanted.set()
    with _each_line(wanted.set):
        async with httpx.AsyncClient(base_url=f"{pbx}/sandbox") as control:
            for scenario in cycle(each for each in SCENARIOS if each.phones <= len(phones)):
                await wanted.wait()
                wanted.clear()
                lines.print(f"\n[bold]A call: {scenario}[/]")
                order = {"scenario": scenario, "speed": SPEED}
                (await control.post("/calls", json=order)).raise_for_status()


@contextmanager
def _each_line(call: Callable[[], object]) -> Iterator[None]:
    if not sys.stdin.isatty():
        yield
        return

    def read() -> None:
        sys.stdin.readline()
        call()

    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, read)
    try:
        yield
    finally:
        loop.remove_reader(sys.stdin)


@asynccontextmanager
async def _also(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do this work in the background while in this context."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        await end(task)
