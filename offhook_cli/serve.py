"""`offhook serve`: run the receiver."""

import socket
from contextlib import suppress
from functools import partial
from math import ceil
from typing import Annotated

import typer
import uvicorn
from uvicorn.supervisors import Multiprocess

from offhook.callback_url import revoked_urls
from offhook.operations.running_files import SERVE, Loaded, loaded_now
from offhook.settings import Settings, load_settings
from offhook_cli.options import Host, Port
from offhook_cli.screen import note
from offhook_cli.startup import (
    begin_reload,
    bound,
    check_server,
    reload_on_hangup,
    start_logging,
)
from receiver.app import create_app
from receiver.following import follow
from receiver.journal import open_journals
from receiver.uvicorn_protocol import server_config


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8080,
    processes: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Processes; one handles thousands of callbacks per second."
        ),
    ] = 1,
) -> None:
    """Run the receiver: accept the callbacks of the PBX.

    On SIGTERM or Ctrl-C it answers the callbacks in flight, then stops.
    SIGHUP applies a changed configuration, as `offhook reload` does.
    For TLS, put a proxy in front of it.

    \b
    Examples:
      offhook serve
      offhook serve --host 0.0.0.0 --port 8080 --processes 2
    """
    settings = load_settings()
    revoked_urls(settings.revoked_file)  # uvicorn would restart a process that cannot read it
    log_config = start_logging(settings)
    loaded = loaded_now(settings, program=SERVE)
    config = server_config(
        app=partial(create_app, settings, loaded),
        host=host,
        port=port,
        workers=processes,
        timeout_graceful_shutdown=ceil(settings.read_timeout) + 5,
    )
    config.log_config = log_config  # for the processes that uvicorn starts
    listening = bound(host, port)
    check_server(settings)
    with suppress(KeyboardInterrupt):  # uvicorn raises it when it has stopped
        _run(config, settings, loaded, listening)


def _run(
    config: uvicorn.Config, settings: Settings, loaded: Loaded, listening: socket.socket
) -> None:
    reload_on_hangup()
    if config.workers > 1:
        # uvicorn would restart a process that cannot open its journal forever.
        for journal in open_journals(settings.journal_folder, settings.journal_size):
            journal.close()
        _print_address(config)
        _Receivers(config, [listening]).run_all(settings, loaded)
        return
    server = _Server(config)
    server.run([listening])
    if not server.started:
        raise typer.Exit(1)


class _Receivers(Multiprocess):
    """Several processes. A restarted one runs the version of the others."""

    def run_all(self, settings: Settings, loaded: Loaded) -> None:
        """Run until SIGTERM."""

        def take(settings: Settings, loaded: Loaded) -> None:
            self.config.app = partial(create_app, settings, loaded)

        leave = follow(settings, loaded, take)
        self.run()
        leave()

    def handle_hup(self) -> None:
        """Reload; uvicorn would restart all processes."""
        begin_reload()


class _Server(uvicorn.Server):
    """Prints the address once it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _print_address(self.config)


def _print_address(config: uvicorn.Config) -> None:
    host = f"[{config.host}]" if ":" in config.host else config.host
    note(f"The receiver listens on http://{host}:{config.port}.")
