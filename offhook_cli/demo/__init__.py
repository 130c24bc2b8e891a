"""`offhook demo`: watch events arrive and be delivered. Needs no setup."""

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rq import Worker

from offhook import queues
from offhook.connection import connect, connect_rq
from offhook.errors import ConfigError, OffhookError
from offhook.inbox import Inbox
from offhook.inbox.call_store import Calls
from offhook.inbox.handler_states import HandlerStates
from offhook_cli.demo.show import Show
from offhook_cli.demo.target import OtherSystems
from offhook_cli.embedded_server import EmbeddedServer, free_port
from offhook_cli.live import watched
from offhook_cli.local_processes import process, temporary_folder, until_answers, write_pbx
from offhook_cli.startup import console_packages
from offhook_console.passwords import hash_password
from unifiedapi.sandbox.scenarios import Scenario

HANDLERS = ("call-log", "crm", "alerts")
STORY = {
    Scenario.ANSWERED: "An incoming call is answered.",
    Scenario.OUTGOING: "An outgoing call.",
    Scenario.MISSED: "An incoming call is missed.",
    Scenario.BUSY: "An incoming call reaches a busy phone.",
    Scenario.RING_GROUP: "Three phones ring; one answers.",
}
SPEED = 20.0  # a call of a minute lasts three seconds

_CONFIG = """\
secret = "{secret}"
public_url = "{receiver}"
redis_url = "{redis}"
settle = 0.5                    # a call ends this long after the last hangup; the demo is fast
settle_unanswered = 0.5
partitions = 1                  # one process serves all events here
processes = 1

[console.users.demo]            # the console, on this machine only
role = "operator"
extensions = ["0003*210"]       # whose calls pop up, and from which a click calls
password = "{password_hash}"

[pbx.demo]
host = "{pbx}"
client_id = "offhook"
client_secret = "{pbx_secret}"
insecure = true                 # plain http, on this machine only

[handlers.call-log]             # a database row for every event, call and leg
use = "sql"
[handlers.call-log.options]
url = "sqlite:///{folder}/calls.db"

[handlers.crm]                  # a signed webhook for every event
use = "webhook"
retry = [2, 5, 10]
[handlers.crm.options]
url = "{target}/crm"
secret = "{webhook_secret}"
private_networks = true         # the target is on this machine

[handlers.alerts]               # a message for each missed call
use = "notify"
[handlers.alerts.options]
urls = ["{alerts}"]
title = "Missed call"
body = "{{{{ caller }}}} called {{{{ event.extension }}}}: {{{{ call.outcome }}}}"
"""

PHONES = ("0003*210", "0003*211", "0003*212")
# What an installer does; the second command shows that GET works, too.
_SETUP = (
    ("setup", "--all", "--yes"),
    ("setup", "0003*210", "--method", "GET", "--yes"),
)


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep it running until Ctrl-C, and show its URLs.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Random seed: the same seed places the same calls.",
            show_default="random",
            metavar="N",
        ),
    ] = None,
) -> None:
    """Watch calls arrive and be delivered. Needs no setup.

    Starts a Valkey server, a sandbox PBX, the receiver and the workers, on
    this machine only. Registers the callback URLs on the PBX, places five
    calls, and shows each event and each delivery: to a database, to a CRM
    as signed webhooks, and as alerts. Then stops everything and leaves
    nothing behind.
    """
    console = Console(highlight=False)
    try:
        with temporary_folder("offhook-demo-") as folder:
            asyncio.run(_demo(Show(console), folder, keep=keep, seed=seed))
    except KeyboardInterrupt:
        console.print("\nStopped; nothing is left behind.")
        raise typer.Exit(130) from None
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        raise typer.Exit(2) from error
    except OffhookError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


async def _demo(show: Show, folder: Path, *, keep: bool, seed: int | None) -> None:
    key = f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
    receiver, pbx, console = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
    password = secrets.token_urlsafe(12)
    with console_packages():
        hashed = hash_password(password)
    show.step("a Valkey server, append-only file on")
    with EmbeddedServer(folder / "valkey") as server, OtherSystems(key) as others:
        config = folder / "offhook.toml"
        pbx_secret = write_pbx(folder / "pbx.toml", PHONES)
        config.write_text(
            _CONFIG.format(
                secret=secrets.token_urlsafe(32),
                receiver=receiver,
                redis=server.url,
                pbx=pbx,
                pbx_secret=pbx_secret,
                folder=folder,
                target=others.url,
                webhook_secret=key,
                alerts=f"{others.url.replace('http', 'json')}/alerts",
                password_hash=hashed,
            )
        )
        async with (
            _sandbox(show, config, pbx),
            _offhook(show, config, receiver, server.url),
            _watched(show, server.url) as inbox,
        ):
            await _set_up(show, config)
            await _place_calls(show, pbx, seed)
            await _all_delivered(inbox)
            await _run(show, config, "calls")
            show.summary(folder / "calls.db", others)
            if keep:
                async with _console(show, config, console):
                    show.kept(receiver, pbx, config, folder, console, password)
                    await asyncio.Event().wait()
            show.next_steps()


@contextlib.asynccontextmanager
async def _sandbox(show: Show, config: Path, pbx: str) -> AsyncIterator[None]:
    show.step("a sandbox PBX")
    port = pbx.rpartition(":")[2]
    pbx_file = str(config.with_name("pbx.toml"))
    with _process(config, "sandbox", "start", "--port", port, "--file", pbx_file) as running:
        await until_answers(f"{pbx}/sandbox/tally", running, "the sandbox PBX", config.parent)
        yield


@contextlib.asynccontextmanager
async def _offhook(show: Show, config: Path, receiver: str, redis_url: str) -> AsyncIterator[None]:
    """Run the receiver and the workers as separate processes, as in production."""
    port = receiver.rpartition(":")[2]
    show.step("the receiver")
    with _process(config, "serve", "--port", port) as web:
        await until_answers(f"{receiver}/health/ready", web, "the receiver", config.parent)
        show.step("the workers")
        with _process(config, "work") as work:
            await _until_listening(redis_url, work, config.parent)
            yield


@contextlib.asynccontextmanager
async def _console(show: Show, config: Path, url: str) -> AsyncIterator[None]:
    show.step("the console")
    with _process(config, "console", "--port", url.rpartition(":")[2]) as running:
        await until_answers(f"{url}/sign-in", running, "the console", config.parent)
        yield


def _process(
    config: Path, *arguments: str
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    log = config.parent / f"{arguments[0]}.log"
    return process(log, *arguments, environment={"OFFHOOK_CONFIG": str(config)})


async def _until_listening(redis_url: str, work: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until every queue has a worker."""
    deadline = time.monotonic() + 30
    with connect_rq(redis_url) as rq:
        names = [queues.serve_queue(""), queues.SCHEDULED]
        while not all(Worker.count(queue=queues.queue(name, rq)) for name in names):
            if work.poll() is not None or time.monotonic() > deadline:
                raise OffhookError(f"the workers did not start: see {folder}/work.log")
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def _watched(show: Show, redis_url: str) -> AsyncIterator[Inbox]:
    """Show every event and delivery while in this context."""
    async with connect(redis_url) as redis:
        inbox = Inbox(redis, partitions=1)
        async with watched(inbox, show.event, show.attempt):
            yield inbox


async def _set_up(show: Show, config: Path) -> None:
    """Register the callback URLs on the PBX."""
    for arguments in _SETUP:
        await _run(show, config, *arguments)


async def _run(show: Show, config: Path, *arguments: str) -> None:
    """Run a command and show its output."""
    show.command(arguments)
    columns = {} if show.width is None else {"COLUMNS": str(show.width)}
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "offhook_cli", *arguments),
        env=os.environ | {"OFFHOOK_CONFIG": str(config)} | columns,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await running.communicate()
    if running.returncode:
        raise OffhookError(f"offhook {arguments[0]} failed: {errors.decode().strip()}")
    show.output(output.decode())


async def _place_calls(show: Show, pbx: str, seed: int | None) -> None:
    rng = Random(seed)
    show.legend()
    async with httpx.AsyncClient(base_url=f"{pbx}/sandbox") as control:
        for number, (scenario, story) in enumerate(STORY.items(), start=1):
            show.call(number, len(STORY), story)
            order = {"scenario": scenario, "speed": SPEED, "seed": rng.randrange(2**32)}
            (await control.post("/calls", json=order)).raise_for_status()
            while (tally := (await control.get("/tally")).json())["running"]:
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.8)  # until the call settles, and for the reader
    if tally["accepted"] < tally["sent"]:
        raise OffhookError("the receiver did not accept every callback")


async def _all_delivered(inbox: Inbox) -> None:
    """Wait until every delivery and redelivery is done."""
    states = HandlerStates(inbox)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        calls = await Calls(inbox).live()
        parked = await states.parked()
        found = [
            await states.state(name, partition)
            for name in HANDLERS
            for partition in range(inbox.partitions)
        ]
        if not calls and not parked and not any(each.lag or each.in_flight for each in found):
            await asyncio.sleep(0.3)  # the last deliveries are still being printed
            return
        await asyncio.sleep(0.1)
    raise OffhookError("not everything was delivered within 30 s")
