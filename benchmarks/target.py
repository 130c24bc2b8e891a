"""A server that counts requests and answers 204 at once: python target.py PORT."""

import asyncio
import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.peers import job

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Target(asyncio.Protocol):
    """A connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._left = b""

    def data_received(self, data: bytes) -> None:
        data = self._left + data
        while True:
            head, end, rest = data.partition(b"\r\n\r\n")
            if not end:
                break
            length = head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0]
            size = int(length or 0)
            if len(rest) < size:
                break
            data = rest[size:]
            job.count()
            self._transport.write(_ANSWER)
        self._left = data


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Target, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
