"""The load generator: callbacks over keep-alive connections, from one core, without a library.

An epoll loop sends prepared bytes, several times as fast as any receiver here accepts them.
"""

import asyncio
import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import urlencode

CONNECTIONS = 64


@dataclass
class Outcome:
    """The result of a load. Latencies are in seconds, from when a request was due."""

    seconds: float = 0.0
    answered: int = 0
    refused: int = 0
    latencies: list[float] = field(default_factory=list)

    def percentile(self, part: float) -> float:
        """Return the latency that `part` (0 to 1) of the requests did not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


_unique = count(time.time_ns() // 1000 % 10**12 * 1000)


def fields(call: str, **more: str) -> dict[str, str]:
    """Return the nine parameters of a callback from VoipNow; `more` adds or replaces some."""
    return {
        "CallID": call,
        "CallerIDNum": "01614960207",
        "CallerIDName": "Müller GmbH",
        "CalledDID": "442079460100",
        "CalledExtension": "0003*210",
        "CallStatus": "CALLING",
        "CallFlow": "IN",
        "CallerExtension": "",
        "CalledNumber": "442079460100",
    } | more


def callbacks(paths: list[str], per_call: int = 1) -> Iterator[bytes]:
    """Yield requests forever, `per_call` for each call, with the paths in turn."""
    place = "call-" + 16 * "0"  # replaced later, because encoding a form is slow
    prepared = [
        [post(path, fields(place, CallStatus=str(step))) for step in range(per_call)]
        for path in paths
    ]
    for number in _unique:
        call = b"call-%016d" % number
        for request in prepared[number % len(paths)]:
            yield request.replace(place.encode(), call)


def post(path: str, form: dict[str, str]) -> bytes:
    """Return a POST of a form, as bytes."""
    body = urlencode(form).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: VoipNow\r\nAccept: */*\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection:
    __slots__ = ("due", "received", "socket")

    def __init__(self, port: int) -> None:
        self.connect(port)

    def connect(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.received = b""
        self.due = 0.0


def drive(
    port: int,
    requests: Iterator[bytes],
    seconds: float,
    *,
    connections: int = CONNECTIONS,
    rate: float | None = None,
) -> Outcome:
    """Send requests for a number of seconds, one at a time on each connection.

    Args:
        rate: requests due per second, whether or not earlier ones are answered; a request waits
            when every connection is busy. None: as fast as they are answered.
    """
    prepared = [next(requests) for _ in range(int(min((rate or 40_000) * seconds, 500_000)))]
    prepared.reverse()
    clients = [_Connection(port) for _ in range(connections)]
    by_number = {client.socket.fileno(): client for client in clients}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    outcome = Outcome()
    idle = deque(clients)  # in turn, because the receiver closes idle connections
    clock = time.perf_counter
    began = now = clock()
    ends = began + seconds
    sent = 0
    try:
        while now < ends or len(idle) < connections:
            if now >= ends + 10:
                raise TimeoutError("the receiver stopped answering")
            while idle and now < ends:
                due = now if rate is None else began + sent / rate
                if due > now:
                    break
                client = idle.popleft()
                client.due = due
                client.socket.send(prepared.pop() if prepared else next(requests))
                sent += 1
            pause = 1.0 if rate is None or now >= ends else max(0.0, began + sent / rate - clock())
            for number, _ in poll.poll(pause):
                client = by_number[number]
                answer = client.received + client.socket.recv(65536)
                head, end, body = answer.partition(b"\r\n\r\n")
                if not end or len(body) < _length(head):
                    if not answer:
                        raise ConnectionError("the receiver closed the connection")
                    client.received = answer
                    continue
                client.received = b""
                if head[9] == 0x32:  # 2xx
                    outcome.answered += 1
                else:
                    outcome.refused += 1
                    if b"\nconnection: close" in head.lower():
                        del by_number[number]
                        client.socket.close()
                        client.connect(port)
                        by_number[client.socket.fileno()] = client
                        poll.register(client.socket.fileno(), select.EPOLLIN)
                if rate is not None:
                    outcome.latencies.append(clock() - client.due)
                idle.append(client)
            now = clock()
        outcome.seconds = now - began
        return outcome
    finally:
        poll.close()
        for client in clients:
            client.socket.close()


async def read_answer(reader: asyncio.StreamReader) -> None:
    """Read a response to its end. Raises RuntimeError if the callback was not accepted."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(_length(head))
    if head[9] != 0x32:  # 2xx
        raise RuntimeError(f"the receiver answers {head[:40]!r}")


def _length(head: bytes) -> int:
    at = head.find(b"ontent-")  # Content-Length, in upper or lower case
    while at >= 0:
        if head[at + 7 : at + 14].lower() == b"length:":
            return int(head[at + 14 :].split(b"\r", 1)[0])
        at = head.find(b"ontent-", at + 1)
    return 0
