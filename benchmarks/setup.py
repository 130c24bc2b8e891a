"""Time to set up many extensions, with concurrent and with sequential API requests.

    python -m benchmarks.setup [--extensions N] [--delay SECONDS] [--at-once N]

A sandbox PBX in another process takes 50 ms per API request. First a few extensions are set up with
sequential requests, and the time for all is extrapolated from theirs. Then all are set up as
`offhook setup` does, and once more when there is nothing left to do.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import socket
import time
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from offhook.event import CALLBACKS
from offhook.extensions import ExtensionSettings
from offhook.provisioning.plan import Action, Installation
from offhook.provisioning.registrar import AT_ONCE, Registrar, Survey, Target
from unifiedapi.client import UnifiedApi
from unifiedapi.oauth import BearerToken
from unifiedapi.sandbox.server import create_sandbox
from unifiedapi.sandbox.store import Contents, Extension, Store, User

TOKEN = "a-token-for-the-benchmark"  # noqa: S105
SAMPLE = 20  # extensions set up with sequential requests
INSTALLATION = Installation(
    "https://offhook.example.com", ["a secret for the benchmark, long enough"]
)


def slow(app: ASGIApp, delay: float) -> ASGIApp:
    """Return the app with a delay before each request."""

    async def delayed(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(delay)
        await app(scope, receive, send)

    return delayed


def serve_pbx(listening: socket.socket, numbers: list[str], delay: float) -> None:
    """Run the sandbox PBX on a listening socket."""
    contents = Contents(
        users=[User(3, "0003")],
        extensions=[Extension(number, 3) for number in numbers],
        tokens={TOKEN: 3},
    )
    config = uvicorn.Config(
        slow(create_sandbox(Store(contents)), delay), log_level="critical", lifespan="off"
    )
    asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))


@contextlib.contextmanager
def running_pbx(numbers: list[str], delay: float) -> Iterator[str]:
    """Run the sandbox PBX in a process, and yield its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        # asyncio sets this only on sockets that it opens; without it, responses may take 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        process = multiprocessing.Process(
            target=serve_pbx, args=(listening, numbers, delay), daemon=True
        )
        process.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            process.kill()
            process.join()


async def set_up(url: str, numbers: list[str], at_once: int) -> tuple[float, int]:
    """Set up extensions; return the seconds, and the number of phone call events created."""
    targets = [Target(n, ExtensionSettings(events=CALLBACKS), "@me") for n in numbers]
    async with UnifiedApi(url, BearerToken(TOKEN)) as api:
        registrar = Registrar(api, INSTALLATION, "main", at_once=at_once)
        began = time.monotonic()
        surveys = [each for each in await registrar.survey(targets) if isinstance(each, Survey)]
        outcomes = await registrar.carry_out([each for each in surveys if not each.is_right])
        seconds = time.monotonic() - began
    if len(surveys) < len(targets) or any(outcome.error for outcome in outcomes):
        raise SystemExit("some extensions failed")
    return seconds, sum(outcome.done[Action.CREATE] for outcome in outcomes)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--extensions", type=int, default=1000, help="number of extensions")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds per API request")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="concurrent extensions")
    given = parser.parse_args()
    sample = [f"0003*{n}" for n in range(10_000, 10_000 + min(SAMPLE, given.extensions))]
    rest = [f"0003*{n}" for n in range(20_000, 20_000 + given.extensions)]
    with running_pbx(sample + rest, given.delay) as url:
        seconds, created = asyncio.run(set_up(url, sample, 1))
        slowly = seconds * len(rest) / len(sample)
        print(
            f"sequential: {len(sample)} extensions ({created} phone call events) in "
            f"{seconds:.1f} s; {len(rest)} would take {slowly:.0f} s"
        )
        quickly, created = asyncio.run(set_up(url, rest, given.at_once))
        print(
            f"{given.at_once} concurrent: {len(rest)} extensions ({created} phone call events) in "
            f"{quickly:.1f} s, {(created + len(rest)) / quickly:.0f} requests/s"
        )
        again, created = asyncio.run(set_up(url, rest, given.at_once))
        print(f"again, with nothing to do: {again:.1f} s ({created} created)")
        print(f"speedup: {slowly / quickly:.1f} times as fast")


if __name__ == "__main__":
    main()
