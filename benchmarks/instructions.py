"""CPU instructions per event, counted by valgrind, so that other load does not matter.

    python -m benchmarks.instructions [--quick] [--only NAME ...]

Counts one callback in the receiver, from the bytes received to the bytes sent, and one delivery in
the server of the handlers, with and without folding it into its call; all of Python, without the
kernel and Redis. For comparison: a bare Starlette app on the same protocol, and a bare aiohttp loop
that POSTs what `webhook` does. The difference between a long and a short run leaves out startup.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import redis
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.lifespan.on import LifespanOn
from uvicorn.server import ServerState

from benchmarks.backlog import fill, positions
from benchmarks.load import callbacks
from benchmarks.machine import OTHER, SECRET, listens, running, server, until
from benchmarks.receive import HANDLER, URLS
from benchmarks.rounds import arguments, ratio, table
from offhook.settings import load_settings
from offhook_cli.embedded_server import free_port

_TARGET = Path(__file__).parent / "target.py"
_FEW, _MANY = 64, 1344


class _Wire(asyncio.Transport):
    """A connection that only counts responses."""

    def __init__(self, answered: Callable[[], None]) -> None:
        super().__init__()
        self._answered = answered

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if bytes(data[:10]) == b"HTTP/1.1 2":
            self._answered()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def _requests(config: uvicorn.Config, count: int) -> None:
    config.load()
    lifespan, state = LifespanOn(config), ServerState()
    await lifespan.startup()
    left, done = 0, asyncio.Event()

    def answered() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    protocols = []
    for _ in range(64):
        protocol = config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=state, app_state=lifespan.state
        )
        protocol.connection_made(_Wire(answered))
        protocols.append(protocol)
    requests = callbacks(URLS)
    for _ in range(count // len(protocols)):
        left = len(protocols)
        done.clear()
        for protocol in protocols:
            protocol.data_received(next(requests))
        await done.wait()
    await lifespan.shutdown()


async def starlette(count: int) -> None:
    """Answer 204."""

    async def nothing(request: Request) -> Response:
        return Response(status_code=204)

    app = Starlette(routes=[Route("/callback/{a}/{b}/{c}/{d}", nothing, methods=["POST"])])
    await _requests(uvicorn.Config(app, http="httptools", access_log=False, log_config=None), count)


async def receive(count: int) -> None:
    """Accept a callback."""
    from receiver.uvicorn_protocol import server_config

    await _requests(server_config(host="", port=0), count)


async def deliver(count: int) -> None:
    """Deliver an event to a handler that does nothing."""
    await _deliver(count)


async def fold(count: int) -> None:
    """Do the same, and fold it into its call."""
    await _deliver(count, folds=True)


async def webhook(count: int) -> None:
    """Deliver an event by `webhook`, 64 at a time."""
    await _deliver(count)


async def _deliver(count: int, *, folds: bool = False) -> None:
    from benchmarks.one_server import serve
    from workers.serving import partition_share

    partition_share.SURE_FOR = 3600.0  # valgrind is too slow to renew the lease in time
    progress = Path(os.environ["PROGRESS"])

    def ended() -> bool:
        return int.from_bytes(progress.read_bytes(), "little") >= count

    await serve(load_settings(), folds=folds, ended=ended)


async def loop(count: int) -> None:
    """POST the same JSON by a bare aiohttp loop."""
    sys.path.insert(0, str(Path(__file__).parent / "peers"))
    from bare_loop import post

    await post("aiohttp", count, 64)


_CASES: dict[str, Callable[[int], Awaitable[None]]] = {
    "starlette": starlette,
    "receive": receive,
    "deliver": deliver,
    "fold": fold,
    "loop": loop,
    "webhook": webhook,
}
_BASES = {"receive": "starlette", "fold": "deliver", "webhook": "loop"}


async def _backlog(count: int) -> None:
    settings = load_settings()
    await positions(settings)
    await fill(settings, count)


def _counted(case: str, count: int, redis_url: str) -> int:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    port = free_port()
    target = f"http://127.0.0.1:{port}/calls"
    with tempfile.TemporaryDirectory() as folder:
        handler = HANDLER
        if case == "webhook":
            handler = (
                '[handlers.crm]\nuse = "webhook"\nconcurrency = 64\n[handlers.crm.options]\n'
                f"url = {target!r}\nprivate_networks = true\n"
            )
        file = Path(folder, "offhook.toml")
        file.write_text(f"secret = {SECRET!r}\nredis_url = {redis_url!r}\n{handler}")
        (progress := Path(folder, "progress")).write_bytes(bytes(8))
        os.environ["OFFHOOK_CONFIG"] = str(file)
        environment = {"PROGRESS": str(progress), "TARGET": target}
        if case in ("deliver", "fold", "webhook"):
            asyncio.run(_backlog(count))
        with running([sys.executable, _TARGET, str(port)], Path(folder, "log"), environment, OTHER):
            until(lambda: listens(port), "the target listens")
            ran = subprocess.run(
                [
                    *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
                    *(sys.executable, "-m", "benchmarks.instructions", case, str(count)),
                ],
                env=os.environ | environment,
                capture_output=True,
                text=True,
                check=False,
            )
    found = re.search(r"Collected : (\d+)", ran.stderr)
    if ran.returncode or not found:
        raise RuntimeError(ran.stderr[-3000:])
    return int(found[1])


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] in _CASES:
        uvloop.run(_CASES[sys.argv[1]](int(sys.argv[2])))  # type: ignore[arg-type]
        return
    given = arguments(__doc__ or "")
    many = _FEW + 64 if given.quick else _MANY
    each: dict[str, float] = {}
    with server() as url:
        for case in given.only or _CASES:
            few = _counted(case, _FEW, url)
            each[case] = (_counted(case, many, url) - few) / (many - _FEW)
    table(
        "Instructions per event",
        ("", "thousand", "ratio to the bare one"),
        [
            (
                (_CASES[case].__doc__ or "").rstrip("."),
                f"{count / 1000:,.1f}",
                ratio(count, each.get(_BASES.get(case, ""), 0.0)),
            )
            for case, count in each.items()
        ],
    )


if __name__ == "__main__":
    main()
