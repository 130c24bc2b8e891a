"""Latency from accepting an event to calling its handler, at a steady rate and after idle time.

    python -m benchmarks.latency [--quick] [--rounds N] [--rate R] [--only NAME ...]

Offhook's events arrive at the receiver by HTTP, and the clock starts when the receiver has read
them. A peer's clock starts when its producer enqueues. Receiver and producers run on the other
core. With 2,000 handlers, one wants the events.
"""

import itertools
import time
from functools import partial

from benchmarks.engines import OFFHOOK, bench, ended, handlers, installed
from benchmarks.load import callbacks, drive
from benchmarks.machine import OTHER, listens, offhook, running, server, until
from benchmarks.receive import URLS
from benchmarks.rounds import Figures, arguments, interleaved, table
from offhook_cli.embedded_server import free_port

_PEERS = ("taskiq", "huey", "BullMQ", "RQ", "arq")
_QUIET = 7.0  # seconds


def ours(url: str, seconds: float, rate: float, others: int = 0) -> Figures:
    """Measure Offhook, including the first event after idle time.

    Args:
        others: number of handlers that want no event.
    """
    port = free_port()
    with bench(url, "record", 16, more=handlers(others, interested=False)) as measured:
        serve = offhook("serve", "--port", str(port))
        with (
            running(serve, measured.log, measured.environment, OTHER),
            ended(measured.work(OFFHOOK)),
        ):
            until(lambda: listens(port), "the receiver listens")
            time.sleep(2)  # the workers start
            drive(port, itertools.islice(callbacks(URLS), 1), 0.1, connections=1, rate=10)
            until(measured.lines, "the first event is delivered")
            outcome = drive(port, callbacks(URLS), seconds, connections=8, rate=rate)
            until(lambda: len(measured.lines()) > outcome.answered, "all events are delivered")
            figures = _figures(measured.lines()[1:])
            time.sleep(min(_QUIET, seconds))
            before = len(measured.lines())
            drive(port, itertools.islice(callbacks(URLS), 1), 0.1, connections=1, rate=10)
            until(lambda: len(measured.lines()) > before, "the event after idle time is delivered")
            _, _, accepted, delivered = measured.lines()[before]
            return figures | {"after quiet ms": (delivered - accepted) * 1000}


def peer(url: str, name: str, seconds: float, rate: float) -> Figures:
    """Measure a peer."""
    count = int(rate * seconds)
    with bench(url, "record", 8) as measured, ended(measured.work(name)):
        time.sleep(3)  # it starts
        measured.fill(name, count, rate=rate)
        until(lambda: len(measured.lines()) >= count, "all events are delivered")
        return _figures(measured.lines())


def _figures(lines: list[tuple[str, int, float, float]]) -> Figures:
    """Leave out the first tenth, while the engine starts up."""
    ordered = sorted(line[3] - line[2] for line in lines[len(lines) // 10 :])
    return {
        "p50 ms": ordered[len(ordered) // 2] * 1000,
        "p99 ms": ordered[int(len(ordered) * 0.99)] * 1000,
    }


def main() -> None:
    given = arguments(
        __doc__ or "", seconds=(10.0, "seconds of load"), rate=(200.0, "events per second")
    )
    seconds = 1.0 if given.quick else given.seconds
    with server() as url:
        contenders = {
            "Offhook": partial(ours, url, seconds, given.rate),
            "Offhook, 2,000 handlers": partial(ours, url, seconds, given.rate, 1_999),
        }
        for name in _PEERS:
            if installed(name):
                contenders[name] = partial(peer, url, name, seconds, given.rate)
        found = interleaved(contenders, given)
    table(
        f"Latency from acceptance to the handler's call, {given.rate:g} events/s",
        ("", "p50 ms", "p99 ms", "first after idle time, ms"),
        [
            (
                name,
                f"{f['p50 ms']:.2f}",
                f"{f['p99 ms']:.2f}",
                f"{f['after quiet ms']:.1f}" if "after quiet ms" in f else "",
            )
            for name, f in found.items()
        ],
    )


if __name__ == "__main__":
    main()
