"""A receiver as in production: a separate process with uvloop, httptools and real sockets."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offhook.callback_url import callback_url
from tests.conftest import SECRET

_RUN = """
import logging, socket, sys, uvicorn
from receiver.uvicorn_protocol import server_config
logging.basicConfig(level=logging.DEBUG)
listening = socket.socket(fileno=int(sys.argv[1]))
uvicorn.Server(server_config(host="", port=0)).run(sockets=[listening])
"""


@dataclass(frozen=True)
class Answer:
    """The response to one request, up to the end of the connection."""

    raw: bytes

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Return the refusal code."""
        error = self.json["error"]
        assert error["message"]
        return str(error["code"])

    @property
    def without_date(self) -> bytes:
        return b"\r\n".join(
            line for line in self.raw.split(b"\r\n") if not line.startswith(b"date:")
        )


class RunningReceiver:
    """One receiver process.

    Attributes:
        port: where it listens.
        log: the file with its log, including debug lines.
        started: when it was started; monotonic, in seconds.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.started = time.monotonic()

    def connect(self, timeout: float = 60) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def exchange(self, request: bytes) -> Answer:
        """Send bytes, and read until the receiver closes the connection."""
        with self.connect() as connection:
            with contextlib.suppress(ConnectionError):  # it may have answered a part of it
                connection.sendall(request)
            return read_answer(connection)

    def get(self, path: str, query: bytes = b"", method: str = "GET") -> Answer:
        target = path.encode() + (b"?" + query if query else b"")
        return self.exchange(
            b"%s %s HTTP/1.1\r\nHost: pbx.test\r\nConnection: close\r\n\r\n"
            % (method.encode(), target)
        )

    def post(
        self,
        path: str,
        body: bytes,
        content_type: str = "application/x-www-form-urlencoded",
        method: str = "POST",
    ) -> Answer:
        return self.exchange(post_head(path, len(body), content_type, method) + body)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def post_head(
    path: str,
    length: int,
    content_type: str = "application/x-www-form-urlencoded",
    method: str = "POST",
) -> bytes:
    """Return the request line and headers of a callback with a body."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: pbx.test\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {length}\r\nConnection: close\r\n\r\n"
    ).encode()


def read_answer(connection: socket.socket) -> Answer:
    chunks = []
    try:
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    except ConnectionResetError:
        pass  # it did not read the whole request
    return Answer(b"".join(chunks))


def url(
    event_type: str = "dial-in",
    extension: str = "0003*210",
    pbx: str = "main",
    secret: str = SECRET,
) -> str:
    """Return the path of a valid callback URL."""
    return callback_url("", secret, pbx, extension, event_type)


@contextmanager
def running_receiver(
    redis_url: str,
    directory: Path,
    command: list[str] | None = None,
    descriptors: int | None = None,
    **settings: object,
) -> Iterator[RunningReceiver]:
    """Start a receiver with these settings in its environment.

    Args:
        command: what to start instead of `receiver.uvicorn_protocol`; gets no socket.
        descriptors: the limit of open files and sockets, which it cannot raise.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("OFFHOOK_")
    }
    config = directory / "empty.toml"
    config.touch()
    # A server without a fault responds within the patience, however busy the machine is.
    values = {
        "secret": SECRET,
        "redis_url": redis_url,
        "config": config,
        "partitions": 1,
        "patience": 10,
    }
    for name, value in (values | settings).items():
        environment[f"OFFHOOK_{name.upper()}"] = str(value)
    log = directory / f"receiver-{time.monotonic_ns()}.log"
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening, log.open("wb") as output:
        fd = listening.fileno()
        limit = f"ulimit -n {descriptors};" if descriptors else ""
        arguments = command or [sys.executable, "-c", _RUN, str(fd)]
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'{limit} exec "$@"', "sh", *arguments],
            env=environment,
            stderr=output,
            stdout=output,
            pass_fds=[fd],
        )
        receiver = RunningReceiver(process, listening.getsockname()[1], log)
        listening.close()  # the process has it, so the port closes with the process
        try:
            yield receiver
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
