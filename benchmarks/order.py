"""Percentage of events overtaken by a later event of their call.

    python -m benchmarks.order [--quick] [--rounds N] [--only NAME ...]

Each call is a burst of 20 events, a millisecond apart; the target takes 0 to 20 ms for each.
"""

from collections import defaultdict
from functools import partial

from benchmarks.engines import OFFHOOK, bench, ended, installed
from benchmarks.machine import server, until
from benchmarks.rounds import Figures, arguments, interleaved, table

_BURST = 20
_PEERS = ("Celery, threads", "arq", "SAQ", "taskiq", "dramatiq", "huey", "BullMQ")


def overtaken(lines: list[tuple[str, int, float, float]]) -> Figures:
    """Return the percentage of events that a later event of their call overtook."""
    calls: dict[str, list[int]] = defaultdict(list)
    for call, number, _, _ in sorted(lines, key=lambda line: line[3]):
        calls[call].append(number)
    count = sum(
        any(later > number for later in numbers[:index])
        for numbers in calls.values()
        for index, number in enumerate(numbers)
    )
    return {"overtaken %": 100 * count / len(lines)}


def ours(url: str, bursts: int) -> Figures:
    """Measure Offhook with all bursts in the inbox, which is harder than live events."""
    with bench(url, "linger", 16) as measured:
        measured.fill(OFFHOOK, bursts * _BURST, _BURST)
        with ended(measured.work(OFFHOOK)):
            until(lambda: len(measured.lines()) >= bursts * _BURST, "all events are delivered", 120)
            return overtaken(measured.lines())


def peer(url: str, name: str, bursts: int) -> Figures:
    """Measure a peer."""
    with bench(url, "linger", 16) as measured, ended(measured.work(name)):
        measured.fill(name, bursts * _BURST, _BURST, rate=400)
        until(lambda: len(measured.lines()) >= bursts * _BURST, "all events are delivered", 120)
        return overtaken(measured.lines())


def main() -> None:
    given = arguments(__doc__ or "", bursts=(100, "number of bursts"))
    bursts = 5 if given.quick else given.bursts
    with server() as url:
        contenders = {"Offhook": partial(ours, url, bursts)}
        for name in _PEERS:
            if installed(name):
                contenders[name] = partial(peer, url, name, bursts)
        found = interleaved(contenders, given)
    table(
        "Events overtaken by a later event of their call",
        ("", "overtaken"),
        [(name, f"{f['overtaken %']:.0f} %") for name, f in found.items()],
    )


if __name__ == "__main__":
    main()
