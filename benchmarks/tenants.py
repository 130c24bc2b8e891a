"""Tenants: 500 with four handlers each, end to end; and a quiet one beside one that floods.

    python -m benchmarks.tenants [--quick] [--rounds N] [--seconds S] [--only NAME ...]

The first table: callbacks come as fast as the receiver on the other core answers them, and
`offhook work` delivers them on the measured core.

The second table: `offhook serve` and `offhook work` share the measured core. The quiet tenant makes
callbacks at a steady rate; another makes many times its `rate`, in processes of its own. The
clock of a delivery starts when the receiver has read the callback.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.engines import OFFHOOK, Bench, bench, ended
from benchmarks.load import Outcome, callbacks, drive
from benchmarks.machine import (
    MEASURED,
    OTHER,
    ROOT,
    Running,
    listens,
    offhook,
    running,
    server,
    until,
)
from benchmarks.rounds import Figures, arguments, interleaved, ratio, table
from benchmarks.sender import urls
from offhook_cli.embedded_server import free_port

_EVENTS_A_CALL = 4
_SENDERS = 2  # processes that flood
_AHEAD = 3.0  # seconds for which the flood has lasted when the measurement begins, at most
_UNLIMITED = 1e9
_QUIET, _FLOODED = "no flood", "beside a flood"
# A tenant may have only installed handlers in the shared processes.
_ENTRY_POINTS = """\
[offhook.handlers]
bench-nothing = benchmarks.handlers:nothing
bench-record = benchmarks.handlers:record
"""


def end_to_end(url: str, seconds: float, tenants: int, handlers: int) -> Figures:
    """Measure tenants that all have events.

    Args:
        handlers: number of handlers of each tenant.
    """
    tables = "".join(
        _tenant(number, ["nothing"] * handlers, rate=_UNLIMITED, handlers=handlers)
        for number in range(tenants)
    )
    paths = urls([_extension(number % tenants, number) for number in range(max(100, tenants))])
    with (
        _installation(url, tables) as (measured, port),
        ended(measured.work(OFFHOOK)) as workers,
        _serving(measured, port, OTHER),
    ):
        sent = drive(port, callbacks(paths), 1.0, connections=8, rate=len(paths)).answered
        measured.wait(workers, sent * handlers, 120)
        cpu, began = workers.cpu(), time.perf_counter()
        outcome = drive(port, callbacks(paths, _EVENTS_A_CALL), seconds)
        if outcome.refused:
            raise RuntimeError(f"{outcome.refused} callbacks were refused")
        count = outcome.answered * handlers
        measured.wait(workers, sent * handlers + count, 600)
        took, cpu = time.perf_counter() - began, workers.cpu() - cpu
        return {
            "per second": count / took,
            "per CPU-second": count / cpu,
            "us an event": cpu / outcome.answered * 1e6,
            "MB": sum(workers.memory().values()) / 2**20,
        }


def beside(url: str, seconds: float, rate: float, flood: float) -> Figures:
    """Measure a quiet tenant.

    Args:
        rate: its callbacks per second.
        flood: those of another tenant.
    """
    ahead = min(_AHEAD, seconds)
    tables = _tenant(0, ["record", *["nothing"] * 3]) + _tenant(1, ["nothing"] * 4)
    with _installation(url, tables) as (measured, port):

        def send(tenant: int, rate: float, seconds: float, name: str) -> Running:
            # Those that flood give way: in earnest, they run on other machines.
            command = ["nice", "-n", "5"] if tenant else []
            command += [sys.executable, "-m", "benchmarks.sender", str(port), str(rate)]
            command += [str(seconds), *(_extension(tenant, number) for number in range(100))]
            core = MEASURED if tenant else OTHER
            return Running(command, measured.environment, measured.folder / name, core)

        # The receiver and the workers have a core each; the server shares that of the workers.
        working = Running(offhook("work"), measured.environment, measured.log, OTHER)
        with ended(working) as workers, _serving(measured, port, MEASURED):

            def got(count: int) -> list[tuple[str, int, float, float]]:
                """Wait a minute for this many deliveries, and return those that there are."""
                with contextlib.suppress(TimeoutError):
                    until(lambda: len(measured.lines()) >= count, "deliveries")
                workers.check()
                return measured.lines()

            first = _outcome(send(0, 100, 1.2, "first"), 1.2).answered
            if len(got(first)) < first:
                raise TimeoutError(f"not delivered: {measured.log.read_text()[-2000:]}")
            senders = [
                send(1, flood / _SENDERS, ahead + seconds, f"flood {number}")
                for number in range(_SENDERS if flood else 0)
            ]
            time.sleep(ahead)
            sent = _outcome(send(0, rate, seconds, "quiet"), seconds)
            flooded = [_outcome(each, seconds) for each in senders]
            delivered = got(first + sent.answered)[first:]
    waits = sorted(end - begin for *_, begin, end in delivered)
    return {
        "p50 ms": waits[len(waits) // 2] * 1000,
        "p99 ms": waits[int(len(waits) * 0.99)] * 1000,
        "longest ms": waits[-1] * 1000,
        "response p99 ms": sent.percentile(0.99) * 1000,
        "lost": sent.answered - len({call for call, *_ in delivered}),
        "refused": sent.refused,
        "flood accepted": sum(each.answered for each in flooded),
        "flood refused": sum(each.refused for each in flooded),
    }


def _outcome(sender: Running, seconds: float) -> Outcome:
    """Wait for a sender, and return what became of its callbacks."""
    sender.wait(seconds + 60)
    return Outcome(**json.loads(sender.log.read_text()))


@contextlib.contextmanager
def _installation(url: str, tables: str) -> Iterator[tuple[Bench, int]]:
    """Yield an installation with these tables of tenants, and the port for its receiver."""
    with bench(url, "nothing", 16, more=tables) as measured:
        package = measured.folder / "packages" / "bench-0.dist-info"
        package.mkdir(parents=True)
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: bench\nVersion: 0\n")
        (package / "entry_points.txt").write_text(_ENTRY_POINTS)
        measured.environment.update(
            PYTHONPATH=f"{ROOT}{os.pathsep}{package.parent}",
            OFFHOOK_URL_RATE=str(_UNLIMITED),
            OFFHOOK_SOURCE_RATE=str(_UNLIMITED),
        )
        yield measured, free_port()


@contextlib.contextmanager
def _serving(measured: Bench, port: int, core: int) -> Iterator[None]:
    serve = offhook("serve", "--port", str(port))
    with running(serve, measured.log, measured.environment, core):
        until(lambda: listens(port), "the receiver listens")
        yield


def _tenant(number: int, do: Sequence[str], **limits: float) -> str:
    """The table of a tenant: all extensions of an organization, and handlers that do this."""
    return (
        f'[tenants.t{number}]\nextensions = ["main/{number:04}**"]\n'
        + "".join(f"limits.{name} = {value}\n" for name, value in limits.items())
        + "".join(
            f'[tenants.t{number}.handlers.h{place}]\nuse = "bench-{each}"\nconcurrency = 16\n'
            for place, each in enumerate(do)
        )
    )


def _extension(tenant: int, number: int) -> str:
    return f"{tenant:04}*{number:03}"


def main() -> None:
    given = arguments(
        __doc__ or "",
        seconds=(15.0, "seconds of load"),
        rate=(50.0, "callbacks per second of the quiet tenant"),
        flood=(2_000.0, "callbacks per second of the one that floods; 300 are its limit"),
        tenants=(500, "number of tenants with four handlers each"),
    )
    if given.quick:
        given.seconds, given.tenants = 1.0, 20
    quiet = partial(beside, seconds=given.seconds, rate=given.rate)
    many = f"{given.tenants} tenants x 4 handlers"
    with server() as url:
        found = interleaved(
            {
                "1 tenant x 1 handler": partial(end_to_end, url, given.seconds / 3, 1, 1),
                "1 tenant x 100 handlers": partial(end_to_end, url, given.seconds / 3, 1, 100),
                many: partial(end_to_end, url, given.seconds / 3, given.tenants, 4),
                _QUIET: partial(quiet, url, flood=0.0),
                _FLOODED: partial(quiet, url, flood=given.flood),
            },
            given,
        )
    whole = {name: each for name, each in found.items() if "us an event" in each}
    if many in whole:
        table(
            "End to end: deliveries of callbacks that come as fast as they are answered",
            ("", "a second", "a CPU-second", f"{given.tenants} x 4 / it", "CPU, µs an event", "MB"),
            [
                (
                    name,
                    f"{each['per second']:,.0f}",
                    f"{each['per CPU-second']:,.0f}",
                    ratio(whole[many]["per CPU-second"], each["per CPU-second"]),
                    f"{each['us an event']:.0f}",
                    f"{each['MB']:.0f}",
                )
                for name, each in whole.items()
            ],
        )
    beside_it = {name: each for name, each in found.items() if "lost" in each}
    if beside_it:
        keys = next(iter(beside_it.values())).keys()
        table(
            f"A tenant with {given.rate:g} callbacks a second, from acceptance to its handler",
            ("", *keys),
            [(name, *(f"{each[key]:,.1f}" for key in keys)) for name, each in beside_it.items()],
        )


if __name__ == "__main__":
    main()
