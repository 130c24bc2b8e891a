"""Everything that the server of the handlers promises, in one run.

    python -m benchmarks.engine [--quick] [--rounds N] [--only NAME ...]

Everything runs as in production, on one core: `offhook work`, folding calls. The rows without
folding and the price of handlers without interest are of the server alone.
"""

import itertools
import time
from collections.abc import Callable
from functools import partial

from benchmarks import deliver, latency, redeliveries
from benchmarks.engines import OFFHOOK, UNFOLDED, bench, ended, handlers
from benchmarks.load import callbacks, drive
from benchmarks.machine import OTHER, listens, offhook, running, server, until
from benchmarks.receive import URLS
from benchmarks.rounds import Figures, arguments, interleaved, table
from offhook_cli.embedded_server import free_port

_MANY = 2_000  # handlers, of which one is measured
_SETTLES = 10.0  # seconds until nothing of the start is left to do
_LONE = 4.0  # events a second that still come one by one


def uninterested(url: str, events: int, others: int) -> Figures:
    """Measure CPU time per event beside handlers that want none."""
    with bench(url, "nothing", 16, more=handlers(others, interested=False)) as measured:
        measured.fill(UNFOLDED, events)
        with ended(measured.work(UNFOLDED)) as worker:
            _, per_cpu = measured.rate(worker, events)
            return {"us": 1e6 / per_cpu}


def resting(url: str, seconds: float, events: int, count: int) -> Figures:
    """Measure memory and idle CPU of so many handlers, before and after a backlog for all."""
    with bench(url, "nothing", 16, more=handlers(count - 1, interested=True)) as measured:
        with ended(measured.work(OFFHOOK)) as fresh:
            until(lambda: _serves(fresh.memory()), "the server runs")
            time.sleep(_SETTLES)
            memory, cpu = sum(fresh.memory().values()), fresh.cpu()
            time.sleep(seconds)
            idle = (fresh.cpu() - cpu) / seconds
        measured.fill(OFFHOOK, events)
        with ended(measured.work(OFFHOOK)) as busy:
            measured.rate(busy, events * count, 600)
            after = busy.memory()
    return {
        "MB": memory / 2**20,
        "MB after": sum(after.values()) / 2**20,
        "MB server after": max(after.values()) / 2**20,
        "idle %": idle * 100,
    }


def _serves(processes: dict[int, int]) -> bool:
    return len(processes) >= 5  # the supervisor, two workers, the scheduler, the work-horse


def lone(url: str, seconds: float) -> Figures:
    """Measure the CPU time of an event that comes alone, beyond what the workers use at rest."""
    port = free_port()
    with bench(url, "nothing", 16) as measured:
        serve = offhook("serve", "--port", str(port))
        with (
            running(serve, measured.log, measured.environment, OTHER),
            ended(measured.work(OFFHOOK)) as workers,
        ):
            until(lambda: listens(port), "the receiver listens")
            drive(port, itertools.islice(callbacks(URLS), 1), 0.1, connections=1, rate=10)
            until(measured.delivered, "the first event is delivered")
            time.sleep(_SETTLES)
            cpu = workers.cpu()
            time.sleep(seconds)
            rest = workers.cpu() - cpu
            cpu = workers.cpu()
            outcome = drive(port, callbacks(URLS), seconds, connections=1, rate=_LONE)
            return {"ms": (workers.cpu() - cpu - rest) / outcome.answered * 1000}


def main() -> None:
    given = arguments(__doc__ or "")
    part = 100 if given.quick else 1
    seconds = 1.0 if given.quick else 20.0
    many = 20 if given.quick else _MANY
    with server() as url:
        contenders: dict[str, Callable[[], Figures]] = {
            f"{many:,} handlers at rest": partial(resting, url, seconds, 1_000 // part, many),
            "alone": partial(uninterested, url, 200_000 // part, 0),
            f"beside {many - 1:,}": partial(uninterested, url, 200_000 // part, many - 1),
            "latency, 1 handler": partial(latency.ours, url, seconds, 200.0),
            f"latency, {many:,} handlers": partial(latency.ours, url, seconds, 200.0, many - 1),
        }
        for name, what in ((OFFHOOK, "folded"), (UNFOLDED, "not folded")):
            backlog = partial(deliver.backlog, url, name, "nothing")
            contenders |= {
                f"1 handler, {what}": partial(backlog, 200_000 // part, 16),
                f"100 handlers, {what}": partial(backlog, 4_000 // part, 16, more=99),
            }
        contenders |= {
            "redeliveries": partial(redeliveries.redelivering, url, 20_000 // part),
            "dead letters": partial(redeliveries.retrying, url, 10_000 // part),
            "lone events": partial(lone, url, seconds),
        }
        found = interleaved(contenders, given)
    table("The server of the handlers", ("", "measured", "target"), _rows(found, many))


def _rows(found: dict[str, Figures], many: int) -> list[tuple[str, str, str]]:
    rows = []

    def row(contender: str, what: str, text: str, target: str) -> None:
        if contender in found:
            rows.append((what, text.format_map(found[contender]), target))

    at_rest, beside = f"{many:,} handlers at rest", f"beside {many - 1:,}"
    row(at_rest, f"{many:,} handlers: all workers", "{MB:.0f} MB", "")
    row(at_rest, "the same after a backlog for all", "{MB after:.0f} MB", "")
    row(at_rest, "the process that serves them", "{MB server after:.0f} MB", "at most 300 MB")
    row(at_rest, f"{many:,} handlers: CPU at rest", "{idle %:.1f} %", "at most 2 %")
    if {"alone", beside} <= found.keys():
        first, second = found["alone"]["us"], found[beside]["us"]
        text = f"{first:.1f} µs, {second:.1f} µs: {second / first:.2f}"
        rows.append((f"an event alone, and {beside} handlers", text, "at most 1.10"))
    for name in ("latency, 1 handler", f"latency, {many:,} handlers"):
        row(name, f"{name}: p50 and p99", "{p50 ms:.2f} ms, {p99 ms:.2f} ms", "")
        row(name, f"{name}: after idle time", "{after quiet ms:.1f} ms", "under 10 ms")
    for what in ("not folded", "folded"):
        for name in (f"1 handler, {what}", f"100 handlers, {what}"):
            row(name, f"deliveries a CPU-second: {name}", "{per CPU-second:,.0f}", "")
    if {"1 handler, folded", "1 handler, not folded"} <= found.keys():
        ratio = found["1 handler, folded"]["per CPU-second"]
        ratio /= found["1 handler, not folded"]["per CPU-second"]
        rows.append(("folded / not folded", f"{ratio:.2f}", "at least 0.5"))
    row("redeliveries", "redeliveries a second", "{per second:,.0f}", "at least 5,000")
    row("dead letters", "dead letters: all have died", "{dying s:.1f} s", "")
    row("dead letters", "dead letters: retried and delivered", "{all s:.1f} s", "at most 10 s")
    row("lone events", "CPU per event, four a second", "{ms:.2f} ms", "at most 1 ms")
    return rows


if __name__ == "__main__":
    main()
