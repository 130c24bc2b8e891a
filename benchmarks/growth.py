"""CPU time per event with ten times the backlog, handlers, redeliveries, extensions, connections.

    python -m benchmarks.growth [--quick] [--rounds N] [--only NAME ...]

Counts the measured process only, or receiver and workers together for the way from the callback to
the handler. A ratio up to 1.2 is acceptable. For connections, a web app that does nothing is
measured, too.
"""

import time
from functools import partial

from benchmarks import deliver, receive, redeliveries
from benchmarks.engines import OFFHOOK, bench, ended, handlers
from benchmarks.load import callbacks, drive
from benchmarks.machine import OTHER, SECRET, listens, offhook, running, server, until
from benchmarks.rounds import Figures, arguments, interleaved, table
from offhook.callback_url import callback_url
from offhook_cli.embedded_server import free_port

_OTHERS = 200  # handlers that want no event; ten times as many
_RATE = 1_000.0  # callbacks a second on the way from the callback to the handler


def _accepting(
    url: str, seconds: float, *, extensions: int = 100, connections: int = 64
) -> Figures:
    urls = [callback_url("", SECRET, "main", f"0003*{n:06}", "dial-in") for n in range(extensions)]
    return _each(receive.throughput(receive.ours, url, seconds, urls=urls, connections=connections))


def _nothing(url: str, seconds: float, connections: int = 64) -> Figures:
    start = partial(receive.starlette, "bare")
    return _each(receive.throughput(start, url, seconds, connections=connections))


def _delivering(url: str, events: int) -> Figures:
    return _each(deliver.backlog(url, "Offhook", "nothing", events, 16))


def _whole_way(url: str, seconds: float, others: int) -> Figures:
    """Measure receiver and workers with other handlers that want no event."""
    port = free_port()
    with bench(url, "nothing", 16, more=handlers(others, interested=False)) as measured:
        serve = offhook("serve", "--port", str(port))
        with (
            running(serve, measured.log, measured.environment, OTHER) as receiver,
            ended(measured.work(OFFHOOK)) as workers,
        ):
            until(lambda: listens(port), "the receiver listens")
            answered = drive(port, callbacks(receive.URLS), 0.2, rate=_RATE).answered
            measured.wait(workers, answered, 60)
            time.sleep(1)
            cpu = receiver.cpu() + workers.cpu()
            outcome = drive(port, callbacks(receive.URLS), seconds, rate=_RATE)
            expected = answered + outcome.answered
            measured.wait(workers, expected, 60)
            return {"us": (receiver.cpu() + workers.cpu() - cpu) / outcome.answered * 1e6}


def _each(figures: Figures) -> Figures:
    return {"us": 1e6 / figures["per CPU-second"]}


def main() -> None:
    given = arguments(__doc__ or "", seconds=(4.0, "seconds of load"))
    seconds, events = (0.3, 5_000) if given.quick else (given.seconds, 20_000)
    others = _OTHERS // 10 if given.quick else _OTHERS
    with server() as url:
        accepting = partial(_accepting, url, seconds)
        nothing = partial(_nothing, url, seconds)
        pairs = {
            "backlog": (partial(_delivering, url, events), partial(_delivering, url, events * 10)),
            "handlers, the whole way": (
                partial(_whole_way, url, seconds, others),
                partial(_whole_way, url, seconds, others * 10),
            ),
            "redeliveries": (
                partial(redeliveries.redelivering, url, events // 20),
                partial(redeliveries.redelivering, url, events // 2),
            ),
            "extensions": (accepting, partial(accepting, extensions=1_000)),
            "connections": (accepting, partial(accepting, connections=640)),
            "connections, Starlette that answers 204": (nothing, partial(nothing, connections=640)),
        }
        found = interleaved(
            {
                f"{name}, {times}": measure
                for name, both in pairs.items()
                for times, measure in zip(("once", "ten times"), both, strict=True)
            },
            given,
        )
    table(
        "CPU time per event, also with ten times as much",
        ("ten times the", "once, µs", "ten times, µs", "ratio"),
        [
            (
                name,
                f"{found[f'{name}, once']['us']:.0f}",
                f"{found[f'{name}, ten times']['us']:.0f}",
                f"{found[f'{name}, ten times']['us'] / found[f'{name}, once']['us']:.2f}",
            )
            for name in pairs
            if f"{name}, once" in found
        ],
    )


if __name__ == "__main__":
    main()
