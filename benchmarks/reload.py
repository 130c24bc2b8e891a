"""Reload under load: what it costs callbacks and deliveries, beside nothing and a restart.

    python -m benchmarks.reload [--quick] [--rounds N] [--rate R] [--only NAME ...]

Callbacks come at a steady rate. In the middle, the configuration changes and `offhook reload`
applies it, or `offhook work` is stopped and started again. The clock of a delivery starts when the
receiver has read the callback.
"""

import contextlib
import threading
import time
from functools import partial

from benchmarks.engines import OFFHOOK, Bench, bench
from benchmarks.load import callbacks, drive
from benchmarks.machine import OTHER, Running, listens, offhook, running, server, until
from benchmarks.receive import URLS
from benchmarks.rounds import Figures, arguments, interleaved, table
from offhook_cli.embedded_server import free_port

WAYS = NOTHING, RELOAD, RESTART = "no change", "offhook reload", "offhook work restarts"
_CONNECTIONS = 8


def measured(url: str, seconds: float, rate: float, how: str) -> Figures:
    """Measure one of the `WAYS` to change the configuration."""
    port = free_port()
    with bench(url, "record", 16) as found:
        serve = offhook("serve", "--port", str(port))
        working = Working(found)
        with running(serve, found.log, found.environment, OTHER), working:
            until(lambda: listens(port), "the receiver listens")
            first = drive(port, callbacks(URLS), seconds / 5, connections=1, rate=10)
            until(lambda: len(found.lines()) >= first.answered, "the first events are delivered")
            before = len(found.lines())
            changing = threading.Timer(seconds / 3, working.change, [how])
            changing.start()
            outcome = drive(port, callbacks(URLS), seconds, connections=_CONNECTIONS, rate=rate)
            changing.join()

            def got() -> int:
                return len({call for call, *_ in found.lines()[before:]})

            with contextlib.suppress(TimeoutError):
                until(lambda: got() >= outcome.answered, "all events are delivered")
            lost = outcome.answered - got()
            waits = sorted(end - begin for _, _, begin, end in found.lines()[before:])
    return {
        "p50 ms": waits[len(waits) // 2] * 1000,
        "p99 ms": waits[int(len(waits) * 0.99)] * 1000,
        "longest ms": waits[-1] * 1000,
        "callback p99 ms": outcome.percentile(0.99) * 1000,
        "refused": outcome.refused,
        "lost": lost,
        "took s": working.took,
    }


class Working:
    """`offhook work`, which is changed while it runs.

    Attributes:
        took: seconds that the change took.
    """

    def __init__(self, found: Bench) -> None:
        self.took = 0.0
        self._found = found
        self._running = found.work(OFFHOOK)

    def __enter__(self) -> "Working":
        return self

    def __exit__(self, *_: object) -> None:
        self._running.stop()

    def change(self, how: str) -> None:
        """Change the configuration, and apply it."""
        path = self._found.folder / "offhook.toml"
        path.write_text(path.read_text() + "# another version\n")
        began = time.perf_counter()
        if how == RELOAD:
            Running(offhook("reload"), self._found.environment, self._found.log, OTHER).wait(60)
        elif how == RESTART:
            self._running.stop()
            self._running = self._found.work(OFFHOOK)
        self.took = time.perf_counter() - began


def main() -> None:
    given = arguments(
        __doc__ or "", seconds=(15.0, "seconds of load"), rate=(200.0, "callbacks per second")
    )
    seconds = 2.0 if given.quick else given.seconds
    with server() as url:
        found = interleaved(
            {how: partial(measured, url, seconds, given.rate, how) for how in WAYS}, given
        )
    keys = next(iter(found.values())).keys()
    table(
        f"While {given.rate:g} callbacks/s come, from acceptance to the handler's call",
        ("", *keys),
        [(how, *(f"{figures[key]:.1f}" for key in keys)) for how, figures in found.items()],
    )


if __name__ == "__main__":
    main()
