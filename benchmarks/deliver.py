"""Deliveries a second of one worker process on one core, beside the engines people use.

    python -m benchmarks.deliver [--quick] [--rounds N] [--only NAME ...]

A backlog, and handlers that do nothing, wait for 100 ms, or POST JSON to a server on the other
core. Ours keeps its promises meanwhile: order in each call, a lease, acknowledgement in batches.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.engines import ENGINES, bench, ended, installed
from benchmarks.machine import (
    MEASURED,
    OTHER,
    PEERS,
    Running,
    free_port,
    listens,
    running,
    server,
    until,
)
from benchmarks.rounds import Figures, arguments, interleaved, ratio, table

_TARGET = Path(__file__).parent / "target.py"
_LOOP = Path(__file__).parent / "peers" / "bare_loop.py"
_PYREQWEST = PEERS / "pyreqwest" / "bin" / "python"
_EACH = {  # events, so that each takes seconds
    "RQ": 1_500,
    "BullMQ": 60_000,
    "dramatiq": 20_000,
    "huey": 15_000,
    "taskiq": 15_000,
    "SAQ": 6_000,
    "Celery": 4_000,
}


def ours(
    url: str, do: str, count: int, concurrency: int, per_call: int = 1, target: str = ""
) -> Figures:
    """Our own figures."""
    with bench(url, do, concurrency, target) as measured:
        measured.fill_ours(count, per_call)
        with ended(measured.ours()) as worker:
            return _figures(*measured.rate(worker, count))


def peer(url: str, name: str, do: str, count: int, concurrency: int, target: str = "") -> Figures:
    """Those of a peer."""
    engine = ENGINES[name]
    with bench(url, do, concurrency, target) as measured:
        measured.fill(engine, count)
        with ended(measured.work(engine)) as worker:
            return _figures(*measured.rate(worker, count))


def _figures(rate: float, per_cpu: float) -> Figures:
    return {"per second": rate, "per CPU-second": per_cpu}


@contextmanager
def _receiving(url: str, do: str, concurrency: int, start: str, count: int) -> Iterator[Figures]:
    """A server that counts what it gets, on the other core."""
    port = free_port()
    with bench(url, do, concurrency, f"http://127.0.0.1:{port}/calls") as measured:
        target = [sys.executable, str(_TARGET), str(port)]
        with running(target, measured.log, measured.environment, OTHER):
            until(lambda: listens(port), "the target listens")
            if start == "ours":
                measured.fill_ours(count)
                worker = measured.ours()
            elif start.startswith("bare "):
                client = start.removeprefix("bare ")
                python = str(_PYREQWEST) if client == "pyreqwest" else sys.executable
                loop = [python, str(_LOOP), client, str(count), str(concurrency)]
                worker = Running(loop, measured.environment, measured.log, MEASURED)
            else:
                measured.fill(ENGINES[start], count)
                worker = measured.work(ENGINES[start])
            with ended(worker):
                yield _figures(*measured.rate(worker, count))


def posting(url: str, start: str, count: int, concurrency: int = 64) -> Figures:
    """Deliveries that are POSTs, counted by who gets them."""
    with _receiving(url, "post", concurrency, start, count) as figures:
        return figures


def _show(title: str, base: str, found: dict[str, Figures]) -> None:
    first = found.get(base, {"per second": 0.0, "per CPU-second": 0.0})
    table(
        title,
        ("", "per second", "Offhook / it", "per CPU-second", "Offhook / it"),
        [
            (
                name,
                f"{f['per second']:,.4g}",
                ratio(first["per second"], f["per second"]),
                f"{f['per CPU-second']:,.4g}",
                ratio(first["per CPU-second"], f["per CPU-second"]),
            )
            for name, f in found.items()
        ],
    )


def main() -> None:
    given = arguments(__doc__ or "", events=(200_000, "our backlog"))
    part = 50 if given.quick else 1
    with server() as url:
        contenders: dict[str, Callable[[], Figures]] = {
            "Offhook": partial(ours, url, "nothing", given.events // part, 16),
            "Offhook, 10 events a call": partial(
                ours, url, "nothing", given.events // part, 16, 10
            ),
        }
        for name, count in _EACH.items():
            if installed(name):
                contenders[name] = partial(peer, url, name, "nothing", count // part, 16)
        found = interleaved(contenders, given)
        _show("Deliveries, a handler that does nothing", "Offhook", found)

        for concurrency in (100, 1000):
            count = concurrency * (5 if given.quick else 50)
            contenders = {"Offhook": partial(ours, url, "wait", count, concurrency)}
            for name in ("BullMQ", "Celery, gevent", "SAQ"):
                if installed(name):
                    contenders[name] = partial(peer, url, name, "wait", count, concurrency)
            if installed("RQ") and concurrency == 100:
                contenders["RQ"] = partial(peer, url, "RQ", "wait", 60, 1)
            found = interleaved(contenders, given)
            _show(
                f"Deliveries, a handler that waits 100 ms, {concurrency} at a time "
                f"(at most {concurrency * 10:,}/s)",
                "Offhook",
                found,
            )

        count = 60_000 // part
        contenders = {
            "Offhook": partial(posting, url, "ours", count),
            "a bare loop of our HTTP client": partial(posting, url, "bare ours", count),
            "a bare aiohttp loop": partial(posting, url, "bare aiohttp", count),
            "a bare httpx loop": partial(posting, url, "bare httpx", count // 20),
        }
        if _PYREQWEST.exists():
            contenders["a bare pyreqwest loop"] = partial(posting, url, "bare pyreqwest", count)
        for name in ("BullMQ", "taskiq"):
            if installed(name):
                contenders[name] = partial(posting, url, name, count // 3)
        found = interleaved(contenders, given)
        _show("Deliveries, POSTs to a server on the other core, 64 at a time", "Offhook", found)


if __name__ == "__main__":
    main()
