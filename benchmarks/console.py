"""The console: time from a callback to 1,000 listeners, what receiving loses, and memory.

    python -m benchmarks.console [--quick] [--rounds N] [--listeners N] [--rate R] [--calls N]

A thousand programs, each with a phone of its own: from sending the callback that a phone rings to
the pop at its listener. A thousand wallboards that show all calls: until each of them has the card.
Callbacks accepted a second without a console, and while one tells a thousand programs of each.
Receiver, workers and console share one core, so what one of them takes another lacks. And the
memory of the console and of a browser over the calls of a day.

Each figure is printed beside what it should be.
"""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

from benchmarks.console_day import day
from benchmarks.console_installation import Installation, installation, phone
from benchmarks.load import callbacks, drive, fields, post, read_answer
from benchmarks.machine import SECRET, server
from benchmarks.rounds import Figures, arguments, interleaved, ratio, table
from offhook.callback_url import callback_url

_MOST_MS = 100.0  # from a callback to 99 % of the listeners
_LEAST_RATIO = 0.95  # of what the receiver does with a second of CPU
_MOST_GROWTH = 0.10  # of memory, from a quarter of the day to its end


@asynccontextmanager
async def listening(
    port: int, headers: list[str], hear: Callable[[int, bytes], None]
) -> AsyncIterator[None]:
    """Open a stream for each header, and hand each line of data to `hear`, with its number."""
    ready = asyncio.Event()
    opened = 0

    async def read(number: int, header: str) -> None:
        nonlocal opened
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{header}\r\n\r\n".encode())
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"the console answers {status!r}")
        opened += 1
        if opened == len(headers):
            ready.set()
        while line := await reader.readline():
            if line.startswith(b"data: "):
                hear(number, line)

    reading = [asyncio.create_task(read(*each)) for each in enumerate(headers)]
    async with asyncio.timeout(120):
        done, _ = await asyncio.wait(
            [*reading, asyncio.create_task(ready.wait())], return_when=asyncio.FIRST_COMPLETED
        )
    for task in done:
        task.result()
    await asyncio.sleep(1.0)
    try:
        yield
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)


async def ring(
    port: int, rate: float, seconds: float, number_of: Callable[[], int]
) -> dict[str, float]:
    """Let phones ring at this rate. Return when each callback was sent, by CallID."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent: dict[str, float] = {}
    began = time.perf_counter()
    for count in range(max(1, int(rate * seconds))):
        await asyncio.sleep(began + count / rate - time.perf_counter())
        call, extension = f"ring-{time.time_ns()}", phone(number_of())
        path = callback_url("", SECRET, "main", extension, "dial-in")
        writer.write(post(path, fields(call, CalledExtension=extension)))
        sent[call] = time.perf_counter()
        await read_answer(reader)
    writer.close()
    return sent


def phones(url: str, listeners: int, rate: float, seconds: float) -> Figures:
    """A phone rings: until its listener has the pop."""
    with installation(url, listeners) as made:
        got: dict[str, float] = {}
        before: list[int] = []
        cpu: list[float] = []

        def hear(number: int, line: bytes) -> None:
            if b'"state":"ringing"' in line:
                got.setdefault(
                    line.partition(b'"call":"main/')[2].partition(b'"')[0].decode(),
                    time.perf_counter(),
                )

        async def measure() -> dict[str, float]:
            headers = [f"Authorization: Bearer {token}" for token in made.tokens]
            async with listening(made.console, headers, hear):
                before.append(made.memory())
                began = made.cpu()
                sent = await ring(
                    made.receiver, rate, seconds, partial(random.randrange, listeners)
                )
                async with asyncio.timeout(60):
                    while not sent.keys() <= got.keys():  # it has calls of earlier rounds, too
                        await asyncio.sleep(0.05)
                cpu.append((made.cpu() - began) / len(sent) * 1000)
                return sent

        sent = asyncio.run(measure())
        return (
            _spread([got[call] - at for call, at in sent.items()])
            | _grown(made, before)
            | {"CPU ms": cpu[0]}
        )


def wallboards(url: str, listeners: int, rate: float, seconds: float) -> Figures:
    """A phone rings: until the last wallboard has the card."""
    with installation(url, listeners) as made:
        got: dict[str, list[float]] = {}
        before: list[int] = []
        cpu: list[float] = []

        def hear(number: int, line: bytes) -> None:
            at = line.find(b'data-name="main/ring-')
            if at >= 0 and b"lane-ringing" in line:
                call = line[at + 16 :].partition(b'"')[0].decode()
                got.setdefault(call, []).append(time.perf_counter())

        async def measure() -> dict[str, float]:
            headers = [f"Cookie: {made.cookie}"] * listeners
            async with listening(made.console, headers, hear):
                before.append(made.memory())
                began = made.cpu()
                sent = await ring(made.receiver, rate, seconds, lambda: 0)
                async with asyncio.timeout(60):
                    while any(len(got.get(call, ())) < listeners for call in sent):
                        await asyncio.sleep(0.05)
                cpu.append((made.cpu() - began) / len(sent) * 1000)
                return sent

        sent = asyncio.run(measure())
        times = [each - at for call, at in sent.items() for each in got[call]]
        return _spread(times) | _grown(made, before) | {"CPU ms": cpu[0]}


def receiving(url: str, listeners: int, rate: float, seconds: float, *, console: bool) -> Figures:
    """Callbacks accepted in a second: each a pop at a listener, or without a console."""
    with installation(url, listeners, console=console) as made:

        async def measure() -> Figures:
            headers = [f"Authorization: Bearer {token}" for token in made.tokens]
            async with listening(made.console, headers, lambda number, line: None):
                return await asyncio.to_thread(_driven, made, listeners, rate, seconds)

        return asyncio.run(measure()) if console else _driven(made, listeners, rate, seconds)


def _driven(made: Installation, listeners: int, rate: float, seconds: float) -> Figures:
    urls = [callback_url("", SECRET, "main", phone(n), "dial-in") for n in range(listeners)]
    drive(made.receiver, itertools.islice(callbacks(urls), 100), 0.2, connections=1, rate=100)
    before = made.receiver_process.cpu()
    outcome = drive(made.receiver, callbacks(urls), seconds, connections=16, rate=rate or None)
    cpu = made.receiver_process.cpu() - before
    found = {
        "per second": outcome.answered / outcome.seconds,
        "per CPU-second": outcome.answered / cpu,
    }
    return found | ({"p99 ms": outcome.percentile(0.99) * 1000} if rate else {})


def _grown(made: Installation, before: list[int]) -> Figures:
    """The console's memory with all listeners, before the load and after."""
    return {"MB before": before[0] / 1e6, "MB after": made.memory() / 1e6}


def _spread(times: list[float]) -> Figures:
    ordered = sorted(times)
    return {
        "p50 ms": ordered[len(ordered) // 2] * 1000,
        "p99 ms": ordered[int(len(ordered) * 0.99)] * 1000,
        "most ms": ordered[-1] * 1000,
    }


def _verdicts(found: Mapping[str, Figures]) -> list[tuple[str, str, str, str]]:
    """Each target, with what was measured."""
    rows = []

    def add(name: str, measured: float, target: float, form: str, *, least: bool = False) -> None:
        met = measured >= target if least else measured <= target
        sign = "≥" if least else "≤"
        rows.append((name, f"{measured:{form}}", f"{sign} {target:{form}}", "yes" if met else "NO"))

    for name in ("phones", "wallboards"):
        if name in found:
            add(f"{name}: p99 in ms", found[name]["p99 ms"], _MOST_MS, ".1f")
    if "alone" in found and "with the console" in found:
        name = "per CPU-second"
        share = found["with the console"][name] / found["alone"][name]
        add("receiving: with the console / alone", share, _LEAST_RATIO, ".2f", least=True)
    for part in ("console", "browser"):
        if "day" in found:
            figures = found["day"]
            grown = figures[f"{part} MB after"] / figures[f"{part} MB before"] - 1
            add(f"day: growth of the {part}'s memory", grown, _MOST_GROWTH, ".1%")
    return rows


def main() -> None:
    given = arguments(
        __doc__ or "",
        seconds=(20.0, "seconds of load"),
        listeners=(1000, "browsers and programs that listen"),
        rate=(20.0, "phones that begin to ring a second"),
        callbacks=(500.0, "callbacks a second while the console works; 0: as many as possible"),
        calls=(5000, "calls of the day"),
        day_rate=(80.0, "calls of the day that begin in a second"),
    )
    listeners, seconds = (20, 0.5) if given.quick else (given.listeners, given.seconds)
    calls = 400 if given.quick else given.calls
    receive = partial(receiving, listeners=listeners, rate=given.callbacks, seconds=seconds)
    with server() as url:
        found = interleaved(
            {
                "phones": partial(phones, url, listeners, given.rate, seconds),
                "wallboards": partial(wallboards, url, listeners, given.rate / 20, seconds),
                "alone": partial(receive, url, console=False),
                "with the console": partial(receive, url, console=True),
            },
            given,
        )
        given.rounds = 1  # a day is long enough
        found |= interleaved({"day": partial(day, url, calls, given.day_rate)}, given)
    columns = ("p50 ms", "p99 ms", "most ms", "CPU ms", "MB before", "MB after")
    table(
        f"From a callback to {listeners:,} listeners; CPU of the console for each callback",
        ("", *columns),
        [
            (name, *(f"{found[name][key]:.1f}" for key in columns))
            for name in ("phones", "wallboards")
            if name in found
        ],
    )
    alone = found.get("alone", {})
    table(
        f"Receiving {given.callbacks:g} callbacks a second",
        ("", "per second", "per CPU-second", "ratio", "p99 ms"),
        [
            (
                name,
                f"{found[name]['per second']:,.0f}",
                f"{found[name]['per CPU-second']:,.0f}",
                ratio(found[name]["per CPU-second"], alone.get("per CPU-second", 0.0)),
                f"{found[name].get('p99 ms', 0.0):.1f}",
            )
            for name in ("alone", "with the console")
            if name in found
        ],
    )
    if "day" in found:
        table(
            f"A day of {calls:,} calls",
            ("", "after a quarter", "at its end"),
            [
                (name, *(f"{found['day'][f'{name} {when}']:,.1f}" for when in ("before", "after")))
                for name in ("console MB", "browser MB", "nodes")
            ],
        )
    table("Targets", ("", "measured", "target", "met"), _verdicts(found))


if __name__ == "__main__":
    main()
