"""The target of a handler: a real HTTP server that records requests and gives planned answers."""

import json
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass(frozen=True)
class Recorded:
    """A request as received; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Planned:
    """A planned answer, after `delay` seconds. With `drop` the connection is closed instead."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0
    drop: bool = False


class HttpTarget:
    """A server that answers with its plans in turn, then with 200."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.plans: deque[Planned] = deque()
        target = self

        class Answering(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                target.requests.append(Recorded(self.command, self.path, headers, body))
                plan = target.plans.popleft() if target.plans else Planned()
                time.sleep(plan.delay)
                if plan.drop:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                try:
                    self.send_response(plan.status)
                    for name, value in plan.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(plan.body)))
                    self.end_headers()
                    self.wfile.write(plan.body)
                except OSError:  # the client has closed the connection
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
                """Log nothing: tests read `requests`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def plan(self, status: int = 200, **rest: Any) -> None:
        """Plan an answer; `rest` are fields of `Planned`."""
        self.plans.append(Planned(status, **rest))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def http_target() -> Iterator[HttpTarget]:
    """Run a target."""
    target = HttpTarget()
    try:
        yield target
    finally:
        target.close()
