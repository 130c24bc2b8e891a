"""What a cluster costs: callbacks and deliveries per CPU-second over 1, 2 and 3 primaries.

    python -m benchmarks.cluster [--quick] [--rounds N] [--seconds S]

Beside them, one server that is no cluster. A receiver takes as many callbacks as it can; then the
workers, which fold calls, deliver them to a handler that does nothing. The primaries have no
replicas: those would share the cores.
"""

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.load import callbacks, drive
from benchmarks.machine import SECRET, listens, offhook, running, server, until
from benchmarks.receive import URLS
from benchmarks.rounds import Figures, arguments, interleaved, table
from offhook.connection import connect_rq, server_urls
from offhook.inbox import keys
from tests.ports import free_port
from tests.valkey_cluster import Node, ValkeyCluster

PARTITIONS = 12


@contextmanager
def cluster(primaries: int) -> Iterator[str]:
    """Run a cluster on the other core, and yield its URL."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        nodes = [Node(Path(folder)) for _ in range(primaries)]
        for node in nodes:
            stack.callback(node.kill)
        yield ValkeyCluster.of(nodes, replicas=0).url


def measure(primaries: int, seconds: float) -> Figures:
    """Measure with some primaries; 0: with one server that is no cluster."""
    with ExitStack() as stack:
        jobs = stack.enter_context(server())
        url = stack.enter_context(cluster(primaries) if primaries else server())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        file = folder / "offhook.toml"
        file.write_text(
            f"secret = {SECRET!r}\nredis_url = {url!r}\nrq_url = {jobs!r}\nprocesses = 1\n"
            f"partitions = {PARTITIONS}\n"
            '[handlers.crm]\nuse = "benchmarks.handlers:nothing"\nconcurrency = 16\n'
        )
        environment = {"OFFHOOK_CONFIG": str(file), "DO": "nothing", "PROGRESS": str(folder / "p")}
        (folder / "p").write_bytes(bytes(8))
        port = free_port()
        serve = offhook("serve", "--port", str(port))
        with running(serve, folder / "log", environment) as receiver:
            until(partial(listens, port), "the receiver listens")
            warm = drive(port, callbacks(URLS), min(1.0, seconds), connections=64)
            before, there = receiver.cpu(), _cpu(url)
            taken = drive(port, callbacks(URLS), seconds, connections=64)
            accepting, accepting_there = receiver.cpu() - before, _cpu(url) - there
        if taken.refused:
            raise RuntimeError(f"{taken.refused} callbacks were refused")
        with running(offhook("work"), folder / "log", environment) as workers:
            before, there, first = workers.cpu(), _cpu(url), 0
            until(lambda: _delivered(url) > taken.answered // 4, "a quarter is delivered", 120)
            last = warm.answered + taken.answered
            if (quarter := _delivered(url)) < last - taken.answered // 2:
                # Not the first ones: meanwhile, other processes start.
                before, there, first = workers.cpu(), _cpu(url), quarter
                last = quarter + taken.answered // 2
            until(lambda: _delivered(url) >= last, "half is delivered", 120)
            delivered = _delivered(url) - first
            delivering, delivering_there = workers.cpu() - before, _cpu(url) - there
    return {
        "accepted": taken.answered / accepting,
        "delivered": delivered / delivering,
        "us per accepted": 1e6 * accepting_there / taken.answered,
        "us per delivered": 1e6 * delivering_there / delivered,
    }


def _cpu(url: str) -> float:
    """The CPU seconds that the servers have used."""
    total = 0.0
    for each in server_urls(url):
        with connect_rq(each) as client:
            used: Any = client.info("cpu")
            total += used["used_cpu_user"] + used["used_cpu_sys"]
    return total


def _delivered(url: str) -> int:
    with connect_rq(url) as client:
        found = [client.hget(keys.counts(n, "crm"), "delivered") for n in range(PARTITIONS)]
    return sum(int(each or 0) for each in found)


def main() -> None:
    given = arguments(__doc__ or "", seconds=(5.0, "seconds of callbacks"))
    seconds = 1.0 if given.quick else given.seconds
    contenders = {"one server": partial(measure, 0, seconds)}
    for count in (1, 2, 3):
        contenders[f"cluster of {count}"] = partial(measure, count, seconds)
    found = interleaved(contenders, given)
    table(
        "Per CPU-second of the receiver and of the workers, and CPU of the servers per event",
        ("", "accepted", "delivered", "servers: µs per accepted", "µs per delivered"),
        [
            [name, *(f"{value:,.0f}" for value in itertools.islice(figures.values(), 2)),
             *(f"{value:.1f}" for value in itertools.islice(figures.values(), 2, 4))]
            for name, figures in found.items()
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
