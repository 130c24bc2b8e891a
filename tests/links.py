"""`Link`: a port in front of a server's, which a test can cut, and which speaks TLS on request."""

import asyncio
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

from unifiedapi.sandbox.tls import make_certificate


class Link:
    """Forwards connections to a server on this machine until `close()`.

    Args:
        target: the server's port.
        folder: for a certificate of 127.0.0.1, which a client that begins with TLS gets, and
            `ca.pem`. Others are forwarded as they are, because the server that the tests have, and
            so its Sentinels, cannot use TLS.
    """

    def __init__(self, target: int, folder: Path | None = None) -> None:
        self._target = target
        self._tls: ssl.SSLContext | None = None
        if folder is not None:
            made = make_certificate(folder)
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(made.certificate_file, made.key_file)
        self.encrypted = 0  # connections so far
        self._cut = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self.port: int = self._listening.getsockname()[1]
        self._open: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._accepting = self._loop.create_task(self._accept())
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def cut(self) -> None:
        """End every connection, and refuse new ones."""
        self._cut = True
        self._loop.call_soon_threadsafe(self._end)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._accepting.cancel)
        self._thread.join()
        self._loop.close()

    def _end(self) -> None:
        for each in self._open:
            each.cancel()

    def _run(self) -> None:
        with self._listening, suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._accepting)

    async def _accept(self) -> None:
        try:
            while True:
                near, _ = await self._loop.sock_accept(self._listening)
                if self._cut:
                    near.close()
                    continue
                task = self._loop.create_task(self._forward(near))
                self._open.add(task)
                task.add_done_callback(self._open.discard)
        finally:
            self._end()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _forward(self, near: socket.socket) -> None:
        streams = []
        try:
            tls = await self._is_tls(near)
            streams.append(await _accepted(near, self._tls if tls else None))
            self.encrypted += tls
            streams.append(await asyncio.open_connection("127.0.0.1", self._target))
            (one, to_one), (other, to_other) = streams
            await asyncio.wait(
                [asyncio.ensure_future(_copy(a, b)) for a, b in ((one, to_other), (other, to_one))],
                return_when=asyncio.FIRST_COMPLETED,
            )
        except OSError:
            near.close()
        finally:
            for _, writer in streams:
                writer.transport.abort()

    async def _is_tls(self, near: socket.socket) -> bool:
        near.setblocking(False)
        while self._tls:
            with suppress(BlockingIOError):
                return near.recv(1, socket.MSG_PEEK) == b"\x16"  # a handshake
            await asyncio.sleep(0.01)
        return False


async def _accepted(
    sock: socket.socket, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, protocol = await loop.connect_accepted_socket(
        lambda: asyncio.StreamReaderProtocol(reader), sock, ssl=tls
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
