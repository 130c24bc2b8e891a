"""Runs the console in this process, with what only the receiver can do."""

import socket

import uvicorn

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
    config = uvicorn.Config(
        application(settings, retry, loaded_now(settings, program=CONSOLE)),
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
    server = _Server(config, f"http://{f'[{host}]' if ':' in host else host}:{port}")
    server.run([listening])
    return server.started


class _Server(uvicorn.Server):
    """Prints the address once it listens."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        note(f"The console listens on {self._address}.")
