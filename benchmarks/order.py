"""How many events are overtaken by a later one of their call.

    python -m benchmarks.order [--quick] [--rounds N] [--only NAME ...]

Bursts of 20 events of a call, a millisecond apart; the other side takes 0 to 20 ms for each.
"""

from collections import defaultdict
from functools import partial

from benchmarks.engines import ENGINES, bench, ended, installed
from benchmarks.machine import server, until
from benchmarks.rounds import Figures, arguments, interleaved, table

_BURST = 20
_PEERS = ("Celery, threads", "arq", "SAQ", "taskiq", "dramatiq", "huey", "BullMQ")


def overtaken(lines: list[tuple[str, int, float, float]]) -> Figures:
    """The part of the events after which a later one of the same call was delivered earlier."""
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
    """Ours: all bursts lie in the inbox, which is harder than if they came one by one."""
    with bench(url, "linger", 16) as measured:
        measured.fill_ours(bursts * _BURST, _BURST)
        with ended(measured.ours()):
            until(lambda: len(measured.lines()) >= bursts * _BURST, "all are delivered", 120)
            return overtaken(measured.lines())


def peer(url: str, name: str, bursts: int) -> Figures:
    """A peer."""
    engine = ENGINES[name]
    with bench(url, "linger", 16) as measured, ended(measured.work(engine)):
        measured.fill(engine, bursts * _BURST, _BURST, rate=400)
        until(lambda: len(measured.lines()) >= bursts * _BURST, "all are delivered", 120)
        return overtaken(measured.lines())


def main() -> None:
    given = arguments(__doc__ or "", bursts=(100, "bursts of 20 events"))
    bursts = 5 if given.quick else given.bursts
    with server() as url:
        contenders = {"Offhook": partial(ours, url, bursts)}
        for name in _PEERS:
            if installed(name):
                contenders[name] = partial(peer, url, name, bursts)
        found = interleaved(contenders, given)
    table(
        "Events overtaken by a later one of their call",
        ("", "overtaken"),
        [(name, f"{f['overtaken %']:.0f} %") for name, f in found.items()],
    )


if __name__ == "__main__":
    main()
