"""Many extensions: one change while callbacks arrive, the first event after a start, `setup show`.

    python -m benchmarks.extensions [--quick] [--rounds N] [--extensions N] [--only NAME ...]

Callbacks of all extensions in turn arrive at the receiver by HTTP. A change stores the settings of
one extension, as `offhook setup` does, twice a second. `offhook setup show` prints to a pipe.
"""

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial

from benchmarks.engines import OFFHOOK, bench, ended
from benchmarks.load import callbacks, drive
from benchmarks.machine import OTHER, ROOT, SECRET, listens, offhook, running, server, until
from benchmarks.rounds import Figures, arguments, interleaved, ratio, table
from offhook.call import Kind
from offhook.callback_url import callback_url
from offhook.connection import connect
from offhook.event import CALLBACKS
from offhook.extensions import Extensions, ExtensionSettings
from offhook_cli.embedded_server import free_port

_CHANGE_EVERY = 0.5  # seconds
_MOST_URLS = 10_000  # prepared


def store(url: str, extensions: int, first: int = 0) -> None:
    """Store the settings of extensions."""

    async def change() -> None:
        async with connect(url) as client:
            await Extensions(client).change(
                {
                    ("main", f"0003*{n:06}"): ExtensionSettings(
                        label=f"Desk {n}",
                        owner=f"user-{n}@example.com",
                        events=CALLBACKS,
                        kind=Kind.PHONE,
                    )
                    for n in range(first, first + extensions)
                }
            )

    asyncio.run(change())


@contextlib.contextmanager
def changing(url: str) -> Iterator[None]:
    """Change one extension after the other until the end."""
    over = threading.Event()

    async def change() -> None:
        async with connect(url) as client:
            for n in itertools.count():
                if over.wait(_CHANGE_EVERY):
                    return
                settings = ExtensionSettings(owner=f"other-{n}@example.com", events=CALLBACKS)
                await Extensions(client).change({("main", f"0003*{n:06}"): settings})

    thread = threading.Thread(target=lambda: asyncio.run(change()))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def delivering(
    url: str, seconds: float, rate: float, extensions: int, *, changes: bool = False
) -> Figures:
    """Measure responses and deliveries, and the first event after the workers start."""
    urls = [
        callback_url("", SECRET, "main", f"0003*{n:06}", "dial-in")
        for n in range(min(extensions, _MOST_URLS))
    ]
    port = free_port()
    with bench(url, "record", 16) as measured:
        store(url, extensions)
        serve = offhook("serve", "--port", str(port))
        with running(serve, measured.log, measured.environment, OTHER):
            until(lambda: listens(port), "the receiver listens")
            drive(port, itertools.islice(callbacks(urls), 1), 0.1, connections=1, rate=10)
            began = time.monotonic()
            with ended(measured.work(OFFHOOK)):
                until(measured.lines, "the first event is delivered")
                first = time.monotonic() - began
                with changing(url) if changes else contextlib.nullcontext():
                    outcome = drive(port, callbacks(urls), seconds, connections=16, rate=rate)
                until(lambda: len(measured.lines()) > outcome.answered, "all are delivered")
                lines = measured.lines()
    waited = sorted(delivered - accepted for _, _, accepted, delivered in lines[len(lines) // 10 :])
    return {
        "start s": first,
        "response p99 ms": outcome.percentile(0.99) * 1000,
        "delivery p99 ms": waited[int(len(waited) * 0.99)] * 1000,
        "delivery max ms": waited[-1] * 1000,
    }


def showing(url: str, extensions: int, *options: str) -> Figures:
    """Measure `offhook setup show`."""
    with bench(url, "nothing", 1) as measured, tempfile.TemporaryFile() as report:
        store(url, extensions)
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-c", _MEASURED, *offhook("setup", "show", *options)[3:]],
            cwd=ROOT,
            env=os.environ | measured.environment | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=report,
        ) as process:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            lines = first = 0.0
            for _ in process.stdout:
                first = first or time.monotonic() - began
                lines += 1
            seconds = time.monotonic() - began
        report.seek(0)
        *others, kilobytes = report.read().decode().split()
    if process.returncode or others or lines < extensions:
        raise SystemExit(f"`offhook setup show` failed: {others}")
    return {"first line s": first, "last line s": seconds, "MB": int(kilobytes) / 1024}


_MEASURED = """
import atexit, resource, runpy, sys
atexit.register(
    lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
)
runpy.run_module("offhook_cli", run_name="__main__", alter_sys=True)
"""


def main() -> None:
    given = arguments(
        __doc__ or "",
        seconds=(10.0, "seconds of load"),
        rate=(300.0, "callbacks per second"),
        extensions=(100_000, "number of extensions"),
    )
    seconds, many = (1.0, 200) if given.quick else (given.seconds, given.extensions)
    load = partial(delivering, seconds=seconds, rate=given.rate)
    with server() as url:
        found = interleaved(
            {
                "10 extensions": partial(load, url, extensions=10),
                f"{many:,} extensions": partial(load, url, extensions=many),
                f"{many:,}, one changed": partial(load, url, extensions=many, changes=True),
                "setup show": partial(showing, url, many),
                "setup show --json": partial(showing, url, many, "--json"),
            },
            given,
        )
    shown = [name for name in found if name.startswith("setup")]
    quiet = found.get(f"{many:,} extensions", {})
    table(
        f"{given.rate:g} callbacks/s",
        ("", "start to first event, s", "response p99, ms", "delivery p99, ms", "p99 / unchanged"),
        [
            (
                name,
                f"{f['start s']:.2f}",
                f"{f['response p99 ms']:.2f}",
                f"{f['delivery p99 ms']:.2f}",
                ratio(f["delivery p99 ms"], quiet.get("delivery p99 ms", 0.0)),
            )
            for name, f in found.items()
            if name not in shown
        ],
    )
    table(
        f"`offhook setup show` of {many:,} extensions",
        ("", "first line, s", "last line, s", "memory, MB"),
        [(name, *(f"{figure:.1f}" for figure in found[name].values())) for name in shown],
    )


if __name__ == "__main__":
    main()
