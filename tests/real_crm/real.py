"""Real CRMs for the tests, started once, with their data in a temporary folder."""

import os
import signal
import subprocess
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from starlette.requests import Request

from tests.workers.handlers.crm.serving import Answered, Asked
from tests.workers.handlers.crm.side import Side

# Headers of one connection, not of the response; httpx has decoded the body.
_HOP = {"connection", "content-encoding", "content-length", "keep-alive", "transfer-encoding"}


class RealSide(Side):
    """A real CRM behind a door that can lose responses. The tests' own requests bypass the door.

    Args:
        real: the address of the CRM itself.
    """

    def __init__(self, real: str) -> None:
        super().__init__()
        self._real = real

    @abstractmethod
    def empty(self) -> None:
        """Delete all calls and contacts of an earlier test."""

    async def answered(self, asked: Asked, request: Request) -> Answered:
        headers = {k: v for k, v in asked.headers.items() if k not in {*_HOP, "host"}}
        async with httpx.AsyncClient(timeout=60, verify=False) as client:  # noqa: S501 - no TLS here
            answer = await client.request(
                asked.method,
                f"{self._real}{asked.path}?{request.url.query}",
                headers=headers,
                content=asked.body,
            )
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP}
        return Answered(answer.status_code, headers=kept, body=answer.content)


@contextmanager
def serving(
    command: Sequence[str | Path], url: str, folder: Path, environment: Mapping[str, str]
) -> Iterator[None]:
    """Run a server; its output is in `folder/log`.

    Args:
        url: answers 200 once the server is ready.
        environment: added to our own.
    """
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],  # it dies with us
            cwd=folder,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 120
        while not _is_up(url):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.1)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False
