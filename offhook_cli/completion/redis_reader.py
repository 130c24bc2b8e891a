"""Reads from Redis for a shell: at most a moment, and without a library to import."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

_PATIENCE = 0.1  # seconds for each step
_MOST = 4_000_000  # bytes of a reply


def ask(url: str, commands: Sequence[Sequence[str]]) -> list[Any]:
    """Run these commands on the server.

    Args:
        url: as the setting `redis_url`; a server behind Sentinels is not asked.

    Raises:
        OSError, ValueError: it does not answer so.
    """
    parts = urlsplit(url)
    first = []
    if parts.password:
        user = [unquote(parts.username)] if parts.username else []
        first.append(["AUTH", *user, unquote(parts.password)])
    if database := _database(parts.path, parts.query, is_socket=parts.scheme == "unix"):
        first.append(["SELECT", database])
    with _connected(parts) as connection, connection.makefile("rb") as replies:
        connection.sendall(b"".join(map(_encoded, [*first, *commands])))
        return [_read(replies) for _ in [*first, *commands]][len(first) :]


@contextmanager
def _connected(parts: SplitResult) -> Iterator[socket.socket]:
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("is not asked")
    with socket.socket(_family(parts)) as connection:
        connection.settimeout(_PATIENCE)
        is_unix = parts.scheme == "unix"
        address = (parts.hostname or "127.0.0.1", parts.port or 6379)
        connection.connect(parts.path if is_unix else address)
        if parts.scheme != "rediss":
            yield connection
            return
        import ssl

        ca_file = parse_qs(parts.query).get("ssl_ca_certs", [None])[0]
        context = ssl.create_default_context(cafile=ca_file)
        with context.wrap_socket(connection, server_hostname=parts.hostname) as secured:
            yield secured


def _family(parts: SplitResult) -> socket.AddressFamily:
    if parts.scheme == "unix":
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET


def _database(path: str, query: str, *, is_socket: bool) -> str:
    return parse_qs(query).get("db", [""])[0] or ("" if is_socket else path.strip("/"))


def _encoded(words: Sequence[str]) -> bytes:
    sent = [word.encode() for word in words]
    return b"*%d\r\n" % len(sent) + b"".join(b"$%d\r\n%s\r\n" % (len(each), each) for each in sent)


def _read(replies: BinaryIO) -> Any:
    line = replies.readline()
    kind, rest = line[:1], line[1:-2]
    if kind in (b"+", b":"):
        return rest
    if kind == b"$":
        length = int(rest)
        if length > _MOST:
            raise ValueError("is too long")
        return replies.read(length + 2)[:-2] if length >= 0 else None
    if kind == b"*":
        return [_read(replies) for _ in range(int(rest))]
    raise ValueError(line.decode("utf-8", "replace"))
