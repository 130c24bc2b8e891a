"""Interruption of deliveries after `kill -9` of a worker with all its processes, restarted at once.

    python -m benchmarks.recovery [--quick] [--only NAME ...] [--patience S]

16 deliveries are in flight when everything is killed. The clock stops when every event is
delivered, including those in flight. Of Offhook, also only the process that delivers (the
work-horse) or only the RQ worker that started it is killed; `offhook work` replaces it.
"""

import os
import signal
import time
from functools import partial

from benchmarks.engines import OFFHOOK, Bench, bench, ended, installed
from benchmarks.machine import server, until
from benchmarks.rounds import Figures, arguments, interleaved, table

_ENGINES = ("Offhook", "BullMQ", "Celery, threads", "arq", "taskiq", "huey", "RQ, forking")

_WORKER, _HORSE = 2, 3  # forks below `offhook work`


def part_killed(url: str, depth: int, count: int, patience: float) -> Figures:
    """Kill one of the processes of `offhook work`."""
    with bench(url, "linger", 16) as measured:
        measured.fill(OFFHOOK, count)
        with ended(measured.work(OFFHOOK)) as worker:
            until(lambda: len(measured.lines()) > count // 4, "some events are delivered")
            os.kill(worker.serving(depth), signal.SIGKILL)
            return _continued(measured, count, patience)


def killed(url: str, name: str, count: int, patience: float) -> Figures:
    """Kill a worker of an engine in the middle of a backlog, and start it again."""
    with bench(url, "linger", 16) as measured:
        measured.fill(name, count)
        with ended(measured.work(name)) as worker:
            until(lambda: len(measured.lines()) > count // 4, "some events are delivered")
            worker.kill()
        with ended(measured.work(name)):
            return _continued(measured, count, patience)


def _continued(measured: Bench, count: int, patience: float) -> Figures:
    """Measure from now until all is delivered."""
    began = time.time()

    def missing() -> int:
        return count - len({call for call, _, _, _ in measured.lines()})

    while missing() and time.time() - began < patience:
        time.sleep(0.05)
    again = min((at for _, _, _, at in measured.lines() if at > began), default=0.0)
    last = max((at for _, _, _, at in measured.lines()), default=0.0)
    return {
        "first s": again - began if again else float("inf"),
        "all s": float("inf") if missing() else last - began,
        "missing": missing(),
    }


def main() -> None:
    given = arguments(__doc__ or "", patience=(120.0, "seconds until an event counts as lost"))
    given.rounds = min(given.rounds, 3)
    patience = 60.0 if given.quick else given.patience
    count = 200 if given.quick else 400
    with server() as url:
        contenders = {
            name: partial(killed, url, name, count, patience)
            for name in _ENGINES
            if installed(name)
        }
        for name, depth in (("its work-horse", _HORSE), ("its RQ worker", _WORKER)):
            contenders[f"Offhook, only {name}"] = partial(part_killed, url, depth, count, patience)
        found = interleaved(contenders, given)
    table(
        f"Seconds from kill -9 and restart (at most {patience:g}) to",
        ("", "the first delivery", "every event is delivered", "not delivered"),
        [
            (name, f"{f['first s']:.1f}", f"{f['all s']:.1f}", f"{f['missing']:.0f}")
            for name, f in found.items()
        ],
    )


if __name__ == "__main__":
    main()
