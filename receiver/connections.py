"""`Connections`: how many may be open, in all and from one address."""

import resource
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import Protocol

from offhook.inbox.refused import Cause
from receiver.limits import Bucket
from receiver.refusals import Refusals

Network = IPv4Network | IPv6Network

_MOST = 10_000  # an idle connection takes about 10 KB
_MOST_UNPROVEN = 256  # of one source: when it closes them, all others wait 0.1 ms for each
_RESERVED = 128  # descriptors for everything else: Redis, the journal, modules
WANTED = 65_536
_LOOK_AT = 100


class Connection(Protocol):
    """What `Connections` needs of a connection."""

    source: "Source | None"

    @property
    def idle(self) -> bool: ...

    def abort(self) -> None: ...


class Source:
    """An address that connects directly and is no proxy.

    Attributes:
        count: number of its connections.
        unproven: those that never sent a valid token, the oldest first.
    """

    __slots__ = ("address", "bucket", "count", "unproven")

    def __init__(self, address: str, rate: float) -> None:
        self.address = address
        self.bucket = Bucket(rate)
        self.count = 0
        self.unproven: dict[Connection, None] = {}


class Connections:
    """The open connections. One is proven once it has sent a valid token.

    Args:
        proxies: networks whose connections carry the requests of many clients.
        rate: requests per second of one source.
    """

    def __init__(self, proxies: Iterable[Network], rate: float, refusals: Refusals) -> None:
        self._proxies = list(proxies)
        self._rate = rate
        self._refusals = refusals
        self._most = max(1, min(_MOST, descriptors() - backlog() - _RESERVED))
        self._sources: dict[str, Source] = {}
        self._unproven: dict[Connection, None] = {}  # oldest first
        self._proven: dict[Connection, None] = {}

    def take(self, proxies: Iterable[Network], rate: float) -> None:
        """Use other settings; open connections stay."""
        self._proxies = list(proxies)
        self._rate = rate
        for source in self._sources.values():
            source.bucket = Bucket(rate)

    def opened(self, connection: Connection, peer: str) -> None:
        """Add a connection, and set its source. If there are too many, close one.

        Of the same source or of all, that is the oldest unproven one, or else an idle one.
        """
        connection.source = source = self._source(peer)
        self._unproven[connection] = None
        if source is not None:
            source.count += 1
            source.unproven[connection] = None
            if source.count > self._most // 4 or len(source.unproven) > _MOST_UNPROVEN:
                self._close(next(iter(source.unproven)), peer)
                return
        if len(self._unproven) + len(self._proven) > self._most:
            oldest = next(iter(self._unproven))
            if oldest is connection:
                first = islice(self._proven, _LOOK_AT)
                oldest = next((each for each in first if each.idle), connection)
            self._close(oldest, peer)

    def prove(self, connection: Connection) -> None:
        """Remember that the connection has sent a valid token."""
        if connection in self._unproven:
            del self._unproven[connection]
            self._proven[connection] = None
            if connection.source is not None:
                del connection.source.unproven[connection]

    def closed(self, connection: Connection) -> None:
        """Forget the connection."""
        if connection in self._unproven:
            del self._unproven[connection]
        elif connection in self._proven:
            del self._proven[connection]
        else:
            return
        if connection.source is not None:
            connection.source.unproven.pop(connection, None)
            connection.source.count -= 1

    def forget_sources(self) -> None:
        """Forget the sources without a connection whose buckets are full again."""
        for name, source in list(self._sources.items()):
            if not source.count and source.bucket.full:
                del self._sources[name]

    def _source(self, peer: str) -> Source | None:
        # One IPv6 client usually has 2**64 addresses.
        name = str(ip_network(f"{peer}/64", strict=False)) if ":" in peer else peer
        source = self._sources.get(name)
        if source is None and peer and not is_in(peer, self._proxies):
            source = self._sources[name] = Source(peer, self._rate)
        return source

    def _close(self, connection: Connection, peer: str) -> None:
        self._refusals.count(Cause.CONNECTIONS, peer)
        self.closed(connection)
        connection.abort()


def is_in(address: str, networks: Iterable[Network]) -> bool:
    """Return whether a network contains the address."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None) or found
    return any(mapped in network for network in networks)


def client_address(
    peer: str, headers: Iterable[tuple[bytes, bytes]], proxies: Iterable[Network]
) -> str:
    """Return the address that a request came from, as the last of our own proxies names it."""
    proxies = list(proxies)
    forwarded = [
        address.strip()
        for name, value in headers
        if name == b"x-forwarded-for"
        for address in value.decode("latin-1").split(",")
    ]
    address = peer
    while forwarded and (address == peer == "" or is_in(address, proxies)):  # "": a Unix socket
        address = forwarded.pop()
    return address


def descriptors() -> int:
    """Return how many files and sockets this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return WANTED if soft == resource.RLIM_INFINITY else soft


def backlog() -> int:
    """Return how many connections may wait; they may all be accepted before we can close one."""
    return min(2048, descriptors() // 8)


def raise_descriptor_limit() -> None:
    """Raise the soft limit of descriptors as far as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
