"""Deliveries per second of one worker process on one core, compared with other engines.

    python -m benchmarks.deliver [--quick] [--rounds N] [--only NAME ...]

A backlog, and handlers that do nothing, wait for 100 ms, or POST JSON to a server on the other
core. Offhook also keeps the order of each call and folds the events into calls, which no other
engine does; it is measured without that, too.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.engines import OFFHOOK, UNFOLDED, bench, ended, handlers, installed
from benchmarks.machine import (
    MEASURED,
    OTHER,
    PEERS,
    Running,
    listens,
    running,
    server,
    until,
)
from benchmarks.rounds import Figures, arguments, interleaved, rate_table
from offhook_cli.embedded_server import free_port

_TARGET = Path(__file__).parent / "target.py"
_LOOP = Path(__file__).parent / "peers" / "bare_loop.py"
_PYREQWEST = PEERS / "pyreqwest" / "bin" / "python"
_EACH = {  # events for a run of some seconds
    "RQ": 1_500,
    "BullMQ": 60_000,
    "dramatiq": 20_000,
    "huey": 15_000,
    "taskiq": 15_000,
    "SAQ": 6_000,
    "Celery": 4_000,
}


def backlog(
    url: str,
    name: str,
    do: str,
    count: int,
    concurrency: int,
    per_call: int = 1,
    more: int = 0,
) -> Figures:
    """Measure an engine that delivers a backlog.

    Args:
        more: other handlers that get every event, too, of Offhook.
    """
    with bench(url, do, concurrency, more=handlers(more, interested=True)) as measured:
        measured.fill(name, count, per_call)
        with ended(measured.work(name)) as worker:
            return _figures(*measured.rate(worker, count * (1 + more)))


def _figures(rate: float, per_cpu: float) -> Figures:
    return {"per second": rate, "per CPU-second": per_cpu}


def posting(url: str, name: str, count: int, concurrency: int = 64) -> Figures:
    """Measure an engine, or a bare loop of a client, that POSTs to a counting server."""
    port = free_port()
    with bench(url, "post", concurrency, f"http://127.0.0.1:{port}/calls") as measured:
        target = [sys.executable, str(_TARGET), str(port)]
        with running(target, measured.log, measured.environment, OTHER):
            until(lambda: listens(port), "the target listens")
            if name.startswith("bare "):
                client = name.removeprefix("bare ")
                python = str(_PYREQWEST) if client == "pyreqwest" else sys.executable
                loop = [python, str(_LOOP), client, str(count), str(concurrency)]
                worker = Running(loop, measured.environment, measured.log, MEASURED)
            else:
                measured.fill(name, count)
                worker = measured.work(name)
            with ended(worker):
                return _figures(*measured.rate(worker, count))


def main() -> None:
    given = arguments(__doc__ or "", events=(200_000, "events in the backlog of Offhook"))
    part = 50 if given.quick else 1
    with server() as url:
        events = given.events // part
        contenders: dict[str, Callable[[], Figures]] = {}
        for name in (OFFHOOK, UNFOLDED):
            contenders |= {
                name: partial(backlog, url, name, "nothing", events, 16),
                f"{name}, 10 events per call": partial(
                    backlog, url, name, "nothing", events, 16, 10
                ),
                f"{name}, 100 handlers": partial(
                    backlog, url, name, "nothing", events // 50, 16, more=99
                ),
            }
        for name, count in _EACH.items():
            if installed(name):
                contenders[name] = partial(backlog, url, name, "nothing", count // part, 16)
        found = interleaved(contenders, given)
        rate_table("Deliveries, a handler that does nothing", found)

        for concurrency in (100,) if given.quick else (100, 1000):
            count = concurrency * (5 if given.quick else 50)
            contenders = {
                name: partial(backlog, url, name, "wait", count, concurrency)
                for name in (OFFHOOK, "BullMQ", "Celery, gevent", "SAQ")
                if installed(name)
            }
            if installed("RQ") and concurrency == 100:
                contenders["RQ"] = partial(backlog, url, "RQ", "wait", 60, 1)
            found = interleaved(contenders, given)
            rate_table(
                f"Deliveries, a handler that waits 100 ms, {concurrency} at a time "
                f"(at most {concurrency * 10:,}/s)",
                found,
            )

        count = 60_000 // part
        contenders = {
            "Offhook": partial(posting, url, OFFHOOK, count),
            "a bare loop of Offhook's HTTP client": partial(posting, url, "bare offhook", count),
            "a bare aiohttp loop": partial(posting, url, "bare aiohttp", count),
            "a bare httpx loop": partial(posting, url, "bare httpx", count // 20),
        }
        if _PYREQWEST.exists():
            contenders["a bare pyreqwest loop"] = partial(posting, url, "bare pyreqwest", count)
        for name in ("BullMQ", "taskiq"):
            if installed(name):
                contenders[name] = partial(posting, url, name, count // 3)
        found = interleaved(contenders, given)
        rate_table("Deliveries, POSTs to a server on the other core, 64 at a time", found)


if __name__ == "__main__":
    main()
