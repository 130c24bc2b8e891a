"""Runs the console in this process, with what only the receiver can do."""

import gc
import socket

import uvicorn
from starlette.applications import Starlette

from offhook.operations.running_files import CONSOLE, loaded_now
from offhook.settings import Settings
from offhook_cli.screen import note
from offhook_cli.startup import console_packages, reload_on_hangup
from receiver.quarantine_retry import retry

_GRACE = 5  # seconds for requests in flight when it stops


def run(settings: Settings, listening: socket.socket, host: str, port: int) -> bool:
    """Serve the console until it is stopped. Return whether it started.

    Raises:
        ConfigError: a package that it needs is missing.
    """
    with console_packages():
        from offhook_console.app import application
    app = application(settings, retry, loaded_now(settings, program=CONSOLE))
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        ws="websockets-sansio",
        ws_max_size=4096,
        timeout_graceful_shutdown=_GRACE,
    )
    reload_on_hangup()
    server = _Server(config, app, f"http://{f'[{host}]' if ':' in host else host}:{port}")
    server.run([listening])
    return server.started


class _Server(uvicorn.Server):
    """Prints the address once it listens, and ends the streams before it waits for requests."""

    def __init__(self, config: uvicorn.Config, app: Starlette, address: str) -> None:
        super().__init__(config)
        self._app = app
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Keep the collector from scanning these objects while browsers wait.
        gc.collect()
        gc.freeze()
        note(f"The console listens on {self._address}.")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.parts.feeds.end_streams()
        await super().shutdown(sockets)
