"""Callbacks accepted per second on one core, compared with web apps that do less or enqueue jobs.

    python -m benchmarks.receive [--quick] [--rounds N] [--seconds S] [--only NAME ...]

64 connections each POST a form of nine fields and wait for the response. Offhook checks the token,
deduplicates, and answers when the event is appended; with `always` also when the server has called
fsync. Then the response time at half of Offhook's highest rate.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import redis

from benchmarks.load import callbacks, drive
from benchmarks.machine import (
    PEERS,
    SECRET,
    Running,
    listens,
    offhook,
    running,
    server,
    until,
)
from benchmarks.rounds import Figures, arguments, interleaved, rate_table, ratio, table
from offhook.callback_url import callback_url
from offhook_cli.embedded_server import free_port

URLS = [callback_url("", SECRET, "main", f"0003*{n}", "dial-in") for n in range(200, 300)]
Start = Callable[[str], AbstractContextManager["Receiver"]]
HANDLER = '[handlers.crm]\nuse = "benchmarks.handlers:nothing"\n'


@dataclass
class Receiver:
    """A process that accepts callbacks."""

    port: int
    process: Running


@contextmanager
def ours(redis_url: str, config: str = HANDLER) -> Iterator[Receiver]:
    """Run `offhook serve` as in production."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "offhook.toml")
        file.write_text(f"secret = {SECRET!r}\nredis_url = {redis_url!r}\n{config}")
        with _listening(
            lambda port: offhook("serve", "--port", str(port)),
            Path(folder, "log"),
            OFFHOOK_CONFIG=str(file),
        ) as receiver:
            yield receiver


@contextmanager
def starlette(app: str, redis_url: str) -> Iterator[Receiver]:
    """Run one of the Starlette apps."""
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        options = ("--loop", "uvloop", "--http", "httptools", "--no-access-log")
        where = ("--app-dir", str(Path(__file__).parent / "peers"))
        with _listening(
            lambda port: [
                *(python, "-m", "uvicorn", f"receivers:{app}"),
                *(*options, *where, "--port", str(port)),
            ],
            Path(folder, "log"),
            REDIS_URL=redis_url,
        ) as receiver:
            yield receiver


@contextmanager
def express(redis_url: str) -> Iterator[Receiver]:
    """Run Express with BullMQ."""
    script = str(Path(__file__).parent / "peers/receiver.js")
    with (
        tempfile.TemporaryDirectory() as folder,
        _listening(
            lambda port: ["node", script, str(port)],
            Path(folder, "log"),
            REDIS_URL=redis_url,
            NODE_PATH=str(PEERS / "node_modules"),
            NODE_ENV="production",
        ) as receiver,
    ):
        yield receiver


@contextmanager
def _listening(
    command: Callable[[int], list[str]], log: Path, **environment: str
) -> Iterator[Receiver]:
    port = free_port()
    with running(command(port), log, environment) as process:

        def is_listening() -> bool:
            process.check()
            return listens(port)

        until(is_listening, "the receiver listens")
        yield Receiver(port, process)


def throughput(
    start: Start,
    redis_url: str,
    seconds: float,
    *,
    urls: Sequence[str] = URLS,
    connections: int = 64,
) -> Figures:
    """Return callbacks accepted per second and per CPU-second of the receiver."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    with start(redis_url) as receiver:
        drive(receiver.port, callbacks(urls), min(1.0, seconds), connections=connections)  # warm up
        before = receiver.process.cpu()
        outcome = drive(receiver.port, callbacks(urls), seconds, connections=connections)
        computed = receiver.process.cpu() - before
    if outcome.refused:
        raise RuntimeError(f"{outcome.refused} callbacks were refused")
    return {
        "per second": outcome.answered / outcome.seconds,
        "per CPU-second": outcome.answered / max(computed, 0.01),
    }


def latency(start: Start, redis_url: str, seconds: float, rate: float) -> Figures:
    """Return response times in milliseconds at a steady rate."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    with start(redis_url) as receiver:
        drive(receiver.port, callbacks(URLS), min(1.0, seconds), rate=rate)
        outcome = drive(receiver.port, callbacks(URLS), seconds, rate=rate)
    return {"p50": outcome.percentile(0.5) * 1000, "p99": outcome.percentile(0.99) * 1000}


def main() -> None:
    given = arguments(
        __doc__ or "",
        seconds=(4.0, "seconds of load"),
        rate=(0.0, "callbacks per second for response times"),
    )
    seconds = 0.3 if given.quick else given.seconds
    with server() as every_second, server("always") as always:
        bare, form, rq = (partial(starlette, app) for app in ("bare", "form", "rq"))
        contenders: dict[str, Callable[[], Figures]] = {
            "Starlette, 204": partial(throughput, bare, every_second, seconds),
            "Starlette, reads the form, 204": partial(throughput, form, every_second, seconds),
            "Offhook": partial(throughput, ours, every_second, seconds),
            "Offhook, appendfsync always": partial(throughput, ours, always, seconds),
            "Starlette, Queue.enqueue in a thread": partial(throughput, rq, every_second, seconds),
        }
        if (PEERS / "node_modules").exists():
            contenders["Express, BullMQ"] = partial(throughput, express, every_second, seconds)
        found = interleaved(contenders, given)
        rate_table(f"Callbacks accepted, one core, {given.rounds} rounds of {seconds:g} s", found)
        if "Offhook" not in found:
            return
        rate = given.rate or found["Offhook"]["per second"] / 2
        given.only = None
        steady = interleaved(
            {
                "Starlette, 204": partial(latency, bare, every_second, seconds, rate),
                "Offhook": partial(latency, ours, every_second, seconds, rate),
            },
            given,
        )
        table(
            f"Response time at {rate:,.0f} callbacks/s",
            ("", "p50 ms", "p99 ms", "p99 ratio"),
            [
                (
                    name,
                    f"{f['p50']:.2f}",
                    f"{f['p99']:.2f}",
                    ratio(f["p99"], steady["Starlette, 204"]["p99"]),
                )
                for name, f in steady.items()
            ],
        )


if __name__ == "__main__":
    main()
