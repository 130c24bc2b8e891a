"""How many connections may be open, and which one is closed if there are more."""

import resource
from ipaddress import ip_network

import pytest
from starlette.applications import Starlette

from receiver.connections import (
    Connections,
    Source,
    client_address,
    is_in,
    raise_descriptor_limit,
)
from receiver.refusals import Refusals
from receiver.uvicorn_protocol import server_config

LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1/128")]
MOST = 40


class Open:
    """A connection that remembers whether it was aborted."""

    source: Source | None = None
    idle = True
    aborted = False

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    monkeypatch.setattr("receiver.connections._MOST", MOST)
    return Connections(LOOPBACK, 0.01, Refusals())


def test_the_receiver_speaks_http_alone() -> None:
    # The console needs a package for WebSockets, which uvicorn would use here, too.
    config = server_config(host="", port=0, app=Starlette)
    config.load()
    assert config.ws_protocol_class is None


def opened(connections: Connections, peer: str, count: int, *, proven: bool = False) -> list[Open]:
    made = [Open() for _ in range(count)]
    for each in made:
        connections.opened(each, peer)
        if proven:
            connections.prove(each)
    return made


def test_one_source_has_a_quarter_and_loses_its_oldest_unproven_connection(
    connections: Connections,
) -> None:
    [proven] = opened(connections, "203.0.113.9", 1, proven=True)
    idle = opened(connections, "203.0.113.9", MOST // 4 - 1)
    other = opened(connections, "203.0.113.10", MOST // 4)
    opened(connections, "203.0.113.9", 3)
    assert [each.aborted for each in idle] == [True] * 3 + [False] * (MOST // 4 - 4)
    assert not proven.aborted
    assert not any(each.aborted for each in other)


def test_one_source_has_few_unproven_connections(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.connections._MOST_UNPROVEN", 3)
    proven = opened(connections, "203.0.113.9", 4, proven=True)
    unproven = opened(connections, "203.0.113.9", 5)
    assert [each.aborted for each in unproven] == [True, True, False, False, False]
    assert not any(each.aborted for each in proven)


def test_source_with_proven_connections_only_gets_no_further_one(connections: Connections) -> None:
    proven = opened(connections, "203.0.113.9", MOST // 4, proven=True)
    [one_more] = opened(connections, "203.0.113.9", 1)
    assert one_more.aborted
    connections.closed(one_more)
    assert not any(each.aborted for each in proven)
    connections.closed(proven[0])
    [another] = opened(connections, "203.0.113.9", 1)
    assert not another.aborted


def test_oldest_unproven_connection_of_all_makes_room(connections: Connections) -> None:
    proven = opened(connections, "203.0.113.9", 5, proven=True)
    idle = [opened(connections, f"198.51.100.{n}", 1)[0] for n in range(MOST - 5)]
    [newest] = opened(connections, "203.0.113.9", 1)
    assert [each.aborted for each in idle] == [True] + [False] * (MOST - 6)
    assert not any(each.aborted for each in [newest, *proven])


def test_idle_proven_connection_makes_room_if_no_other_can(connections: Connections) -> None:
    proven = opened(connections, "127.0.0.1", MOST, proven=True)  # a proxy's are not limited
    proven[0].idle = False
    [newest] = opened(connections, "203.0.113.9", 1)
    assert [each.aborted for each in proven[:3]] == [False, True, False]
    assert not newest.aborted
    connections.prove(newest)
    for each in (newest, *proven):
        each.idle = False
    [refused] = opened(connections, "203.0.113.10", 1)
    assert refused.aborted


def test_one_ipv6_network_is_one_source(connections: Connections) -> None:
    ones = [opened(connections, f"2001:db8::{n:x}", 1)[0] for n in range(MOST // 4 + 1)]
    assert [each.aborted for each in ones] == [True] + [False] * (MOST // 4)


def test_sources_are_forgotten(connections: Connections) -> None:
    [one] = opened(connections, "203.0.113.9", 1)
    assert one.source is not None
    known = one.source
    connections.forget_sources()
    [two] = opened(connections, "203.0.113.9", 1)
    assert two.source is known
    for each in (one, two):
        connections.closed(each)
        connections.closed(each)  # an aborted one is closed again
    known.bucket.take()
    connections.forget_sources()
    assert opened(connections, "203.0.113.9", 1)[0].source is known  # its bucket is not full


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", [b"198.51.100.7"], "203.0.113.9"),  # it is no proxy of ours
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", [b"198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", [b"10.9.9.9, 198.51.100.7"], "198.51.100.7"),  # the first may be invented
        ("127.0.0.1", [b"10.9.9.9", b"198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", [b"10.9.9.9, 198.51.100.7, 127.0.0.2"], "198.51.100.7"),
        ("::1", [b"2001:db8::7"], "2001:db8::7"),
        ("", [b"198.51.100.7"], "198.51.100.7"),  # a Unix socket
        ("127.0.0.1", [b"rubbish\xff"], "rubbish\xff"),
        ("127.0.0.1", [b"198.51.100.7,"], ""),
    ],
)
def test_client_is_the_last_address_that_is_no_proxy(
    peer: str, forwarded: list[bytes], address: str
) -> None:
    headers = [(b"host", b"x"), *((b"x-forwarded-for", value) for value in forwarded)]
    assert client_address(peer, headers, LOOPBACK) == address


def test_networks_contain_addresses() -> None:
    networks = [ip_network("203.0.113.0/24"), ip_network("2001:db8::/64")]
    for address in ("203.0.113.9", "::ffff:203.0.113.9", "2001:db8::1", "2001:db8::1%eth0"):
        assert is_in(address, networks), address
    for address in ("203.0.114.9", "2001:db8:1::1", "rubbish", "", "203.0.113", "1" * 5000):
        assert not is_in(address, networks), address


def test_limit_of_descriptors_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(500, soft), hard))
    try:
        raise_descriptor_limit()
        wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
