"""`Wire`: a TCP proxy that a test cuts and mends."""

import socket
import threading
from contextlib import suppress

from tests.ports import free_port


class Wire:
    """A connection to a server on this machine. While it is cut, nothing gets through.

    Attributes:
        port: where to connect instead.
        sent: what clients have sent, in pieces.
    """

    def __init__(self, to: int) -> None:
        self.port = free_port()
        self.sent: list[bytes] = []
        self._to = to
        self._lock = threading.Lock()
        self.mend()

    def mend(self) -> None:
        """Accept connections, again."""
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._open = {self._listening}
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def cut(self) -> None:
        """Close all connections, and accept none."""
        with self._lock:
            for each in self._open:
                with suppress(OSError):  # its other end was faster
                    each.shutdown(socket.SHUT_RDWR)
            self._open = set()
        self._accepting.join()

    close = cut

    def _accept(self) -> None:
        with self._listening as listening, suppress(OSError):  # it was cut
            while True:
                ours, _ = listening.accept()
                theirs = socket.create_connection(("127.0.0.1", self._to))
                with self._lock:
                    if listening not in self._open:
                        return
                    self._open |= {ours, theirs}
                for one, other in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with one, suppress(OSError):
            while data := one.recv(1 << 16):
                if one.getsockname()[1] == self.port:
                    self.sent.append(data)
                other.sendall(data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)
