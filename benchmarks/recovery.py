"""How long deliveries stand still after `kill -9` of a whole worker that is started again at once.

    python -m benchmarks.recovery [--quick] [--only NAME ...] [--patience S]

16 deliveries are in flight when everything is killed. The clock stops when every event is
delivered, those that were in flight, too.
"""

import time
from collections.abc import Callable
from functools import partial

from benchmarks.engines import ENGINES, Bench, bench, ended, installed
from benchmarks.machine import Running, server, until
from benchmarks.rounds import Figures, arguments, interleaved, table

_PEERS = ("BullMQ", "Celery, threads", "arq", "taskiq", "huey", "RQ, forking")


def ours(url: str, count: int, patience: float) -> Figures:
    """Ours."""
    with bench(url, "linger", 16) as measured:
        measured.fill_ours(count)
        return _killed(measured, measured.ours, count, patience)


def peer(url: str, name: str, count: int, patience: float) -> Figures:
    """A peer."""
    engine = ENGINES[name]
    with bench(url, "linger", 16) as measured:
        measured.fill(engine, count)
        return _killed(measured, partial(measured.work, engine), count, patience)


def _killed(measured: Bench, start: Callable[[], Running], count: int, patience: float) -> Figures:
    with ended(start()) as worker:
        until(lambda: len(measured.lines()) > count // 4, "some are delivered")
        worker.kill()
    began = time.time()
    with ended(start()):

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
    given = arguments(__doc__ or "", patience=(120.0, "seconds, then the rest counts as lost"))
    given.rounds = min(given.rounds, 3)
    patience = 15.0 if given.quick else given.patience
    count = 200 if given.quick else 400
    with server() as url:
        contenders = {"Offhook": partial(ours, url, count, patience)}
        for name in _PEERS:
            if installed(name):
                contenders[name] = partial(peer, url, name, count, patience)
        found = interleaved(contenders, given)
    table(
        f"After kill -9 and a restart: seconds until (within {patience:g} s)",
        ("", "the first delivery", "every event is delivered", "not delivered"),
        [
            (name, f"{f['first s']:.1f}", f"{f['all s']:.1f}", f"{f['missing']:.0f}")
            for name, f in found.items()
        ],
    )


if __name__ == "__main__":
    main()
