"""The console's live feed: time from a callback to 1,000 listeners, and what receiving loses.

    python -m benchmarks.console [--quick] [--rounds N] [--listeners N] [--rate R]

Three figures. A thousand programs, each with a phone of its own: from sending the callback that a
phone rings to the pop at its listener. A thousand wallboards that show all calls: until the last of
them has the card. And callbacks accepted a second with and without the console, its listeners and
its work. Receiver, workers and console share one core, so what one of them takes another lacks.
"""

import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.load import callbacks, drive, fields, post
from benchmarks.machine import SECRET, Running, listens, offhook, running, server, until
from benchmarks.rounds import Figures, arguments, interleaved, ratio, table
from offhook.callback_url import callback_url
from offhook.settings import ConsoleUser, Settings
from offhook.settings.console_table import ConsoleSettings
from offhook_cli.embedded_server import free_port
from offhook_console.passwords import make_token
from offhook_console.sessions import Sessions

_HASH = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaA"  # of no password: all sign in by cookie
_URLS = [callback_url("", SECRET, "main", f"0003*{n}", "dial-in") for n in range(200, 300)]


@dataclass
class Installation:
    """The ports, and the processes that are measured."""

    receiver: int
    console: int
    console_process: Running | None
    receiver_process: Running
    cookie: str
    tokens: list[str] = field(default_factory=list)


def phone(number: int) -> str:
    return f"0003*{1000 + number}"


@contextmanager
def installation(url: str, listeners: int, *, console: bool = True) -> Iterator[Installation]:
    """Run receiver, workers and, if wanted, a console."""
    made = [make_token() for _ in range(listeners)]
    tables = "".join(
        f'[console.users.u{n}]\nrole = "agent"\npassword = "{_HASH}"\nextensions = ["{phone(n)}"]\n'
        f'[console.users.u{n}.tokens.pop]\nhash = "{hashed}"\nscopes = ["live", "numbers"]\n'
        for n, (_, hashed) in enumerate(made)
    )
    tables += f'[console.users.wall]\nrole = "supervisor"\npassword = "{_HASH}"\n'
    ports = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder, "offhook.toml"), Path(folder, "log")
        handler = '[handlers.crm]\nuse = "benchmarks.handlers:nothing"\n'
        file.write_text(
            f"secret = {SECRET!r}\nredis_url = {url!r}\nprocesses = 1\n{handler}{tables}"
        )
        environment = {"OFFHOOK_CONFIG": str(file)}
        with (
            running(offhook("serve", "--port", str(ports[0])), log, environment) as receiver,
            running(offhook("work"), log, environment),
        ):
            until(lambda: listens(ports[0]), "the receiver listens")
            if not console:
                yield Installation(ports[0], 0, None, receiver, "")
                return
            command = offhook("console", "--port", str(ports[1]))
            with running(command, log, environment) as process:
                until(lambda: listens(ports[1]), "the console listens")
                yield Installation(
                    *ports, process, receiver, cookie_of("wall"), [token for token, _ in made]
                )


def cookie_of(user: str) -> str:
    """The cookie of a user of the installation."""
    users = {user: ConsoleUser(password=_HASH, role="supervisor")}  # type: ignore[arg-type]
    settings = Settings.model_construct(secret=_Secret(), console=ConsoleSettings(users=users))
    return f"offhook={Sessions(settings).value(user)}"


class _Secret:
    """The secret, as the settings have it."""

    def get_secret_value(self) -> str:
        return SECRET


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
    for count in range(int(rate * seconds)):
        await asyncio.sleep(began + count / rate - time.perf_counter())
        call, extension = f"ring-{time.time_ns()}", phone(number_of())
        path = callback_url("", SECRET, "main", extension, "dial-in")
        writer.write(post(path, fields(call, CalledExtension=extension)))
        sent[call] = time.perf_counter()
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
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
                before.append(_memory(made))
                began = _cpu(made)
                sent = await ring(
                    made.receiver, rate, seconds, partial(random.randrange, listeners)
                )
                async with asyncio.timeout(60):
                    while len(got) < len(sent):
                        await asyncio.sleep(0.05)
                cpu.append((_cpu(made) - began) / len(sent) * 1000)
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
                before.append(_memory(made))
                began = _cpu(made)
                sent = await ring(made.receiver, rate, seconds, lambda: 0)
                async with asyncio.timeout(60):
                    while sum(map(len, got.values())) < len(sent) * listeners:
                        await asyncio.sleep(0.05)
                cpu.append((_cpu(made) - began) / len(sent) * 1000)
                return sent

        sent = asyncio.run(measure())
        times = [each - at for call, at in sent.items() for each in got[call]]
        return _spread(times) | _grown(made, before) | {"CPU ms": cpu[0]}


def receiving(url: str, listeners: int, rate: float, seconds: float, *, console: bool) -> Figures:
    """Callbacks accepted in a second, with a console and its listeners or without."""
    with installation(url, listeners, console=console) as made:

        async def measure() -> Figures:
            headers = [f"Authorization: Bearer {token}" for token in made.tokens]
            async with listening(made.console, headers, lambda number, line: None):
                return await asyncio.to_thread(_driven, made, rate, seconds)

        return asyncio.run(measure()) if console else _driven(made, rate, seconds)


def _driven(made: Installation, rate: float, seconds: float) -> Figures:
    drive(made.receiver, itertools.islice(callbacks(_URLS), 100), 0.2, connections=1, rate=100)
    before = made.receiver_process.cpu()
    outcome = drive(made.receiver, callbacks(_URLS), seconds, connections=16, rate=rate or None)
    cpu = made.receiver_process.cpu() - before
    found = {
        "per second": outcome.answered / outcome.seconds,
        "per CPU-second": outcome.answered / cpu,
    }
    return found | ({"p99 ms": outcome.percentile(0.99) * 1000} if rate else {})


def _memory(made: Installation) -> int:
    return sum(made.console_process.memory().values()) if made.console_process else 0


def _grown(made: Installation, before: list[int]) -> Figures:
    """The console's memory with all listeners, before the load and after."""
    return {"MB before": before[0] / 1e6, "MB after": _memory(made) / 1e6}


def _cpu(made: Installation) -> float:
    return made.console_process.cpu() if made.console_process else 0.0


def _spread(times: list[float]) -> Figures:
    ordered = sorted(times)
    return {
        "p50 ms": ordered[len(ordered) // 2] * 1000,
        "p99 ms": ordered[int(len(ordered) * 0.99)] * 1000,
        "most ms": ordered[-1] * 1000,
    }


def main() -> None:
    given = arguments(
        __doc__ or "",
        seconds=(20.0, "seconds of load"),
        listeners=(1000, "browsers and programs that listen"),
        rate=(20.0, "phones that begin to ring a second"),
        callbacks=(500.0, "callbacks a second while the console works; 0: as many as possible"),
    )
    listeners, seconds = (20, 2.0) if given.quick else (given.listeners, given.seconds)
    with server() as url:
        found = interleaved(
            {
                "phones": partial(phones, url, listeners, given.rate, seconds),
                "wallboards": partial(wallboards, url, listeners, given.rate / 20, seconds),
                "alone": partial(
                    receiving, url, listeners, given.callbacks, seconds, console=False
                ),
                "with the console": partial(
                    receiving, url, listeners, given.callbacks, seconds, console=True
                ),
            },
            given,
        )
    columns = ("p50 ms", "p99 ms", "most ms", "CPU ms", "MB before", "MB after")
    table(
        f"From a callback to {listeners:,} listeners",
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


if __name__ == "__main__":
    main()
