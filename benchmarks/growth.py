"""CPU time per event with ten times the backlog, handlers, extensions and connections.

    python -m benchmarks.growth [--quick] [--rounds N] [--only NAME ...]

Counts the measured process only. A ratio up to 1.2 is acceptable. For connections, a web app that
does nothing is measured, too.
"""

from functools import partial

from benchmarks import deliver, receive
from benchmarks.machine import SECRET, server
from benchmarks.rounds import Figures, arguments, interleaved, table
from offhook.callback_url import callback_url


def _accepting(
    url: str, seconds: float, *, handlers: int = 1, extensions: int = 100, connections: int = 64
) -> Figures:
    config = "".join(
        f'[handlers.crm{n}]\nuse = "benchmarks.handlers:nothing"\n' for n in range(handlers)
    )
    urls = [callback_url("", SECRET, "main", f"0003*{n:06}", "dial-in") for n in range(extensions)]
    start = partial(receive.ours, config=config)
    return _each(receive.throughput(start, url, seconds, urls=urls, connections=connections))


def _nothing(url: str, seconds: float, connections: int = 64) -> Figures:
    start = partial(receive.starlette, "bare")
    return _each(receive.throughput(start, url, seconds, connections=connections))


def _delivering(url: str, events: int) -> Figures:
    return _each(deliver.backlog(url, "Offhook", "nothing", events, 16))


def _each(figures: Figures) -> Figures:
    return {"us": 1e6 / figures["per CPU-second"]}


def main() -> None:
    given = arguments(__doc__ or "", seconds=(4.0, "seconds of load"))
    seconds, events = (0.3, 5_000) if given.quick else (given.seconds, 20_000)
    with server() as url:
        accepting = partial(_accepting, url, seconds)
        nothing = partial(_nothing, url, seconds)
        pairs = {
            "backlog": (partial(_delivering, url, events), partial(_delivering, url, events * 10)),
            "handlers": (accepting, partial(accepting, handlers=10)),
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
