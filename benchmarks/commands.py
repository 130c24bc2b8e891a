"""Commands that the server runs per event, including those inside scripts.

    python -m benchmarks.commands [--quick] [--only NAME ...]

Compares `INFO commandstats` before and after. The figure depends on the size of batches, which grow
with the load: a backlog is the best case, 200 events/s the worst.
"""

import time
from functools import partial

from benchmarks.engines import OFFHOOK, bench, ended, installed
from benchmarks.load import callbacks, drive
from benchmarks.machine import commands, listens, offhook, running, server, until
from benchmarks.receive import URLS
from benchmarks.rounds import Figures, arguments, interleaved, table
from offhook_cli.embedded_server import free_port

_EACH = {"RQ": 300, "taskiq": 5_000, "huey": 5_000, "BullMQ": 10_000}


def delivering(url: str, name: str, count: int) -> Figures:
    """Count the commands of an engine that delivers a backlog."""
    with bench(url, "nothing", 16) as measured:
        measured.fill(name, count)
        before = sum(commands(url).values())
        with ended(measured.work(name)) as worker:
            measured.rate(worker, count)
            return {"commands": (sum(commands(url).values()) - before) / count}


def receiving(url: str, seconds: float, rate: float | None) -> Figures:
    """Count the commands of the receiver."""
    port = free_port()
    with bench(url, "nothing", 16) as measured:
        serve = offhook("serve", "--port", str(port))
        with running(serve, measured.log, measured.environment):
            until(lambda: listens(port), "the receiver listens")
            time.sleep(0.5)
            before = sum(commands(url).values())
            outcome = drive(port, callbacks(URLS), seconds, rate=rate)
            return {"commands": (sum(commands(url).values()) - before) / outcome.answered}


def main() -> None:
    given = arguments(__doc__ or "", seconds=(3.0, "seconds of load"))
    part, seconds = (20, 0.5) if given.quick else (1, given.seconds)
    with server() as url:
        contenders = {
            "Offhook delivers a backlog": partial(delivering, url, OFFHOOK, 50_000 // part),
            "Offhook accepts at full load": partial(receiving, url, seconds, None),
            "Offhook accepts 200/s": partial(receiving, url, seconds, 200.0),
        }
        for name, count in _EACH.items():
            if installed(name):
                contenders[f"{name} delivers"] = partial(delivering, url, name, count // part)
        found = interleaved(contenders, given)
    table(
        "Commands per event",
        ("", "commands"),
        [(name, f"{f['commands']:.2f}") for name, f in found.items()],
    )


if __name__ == "__main__":
    main()
