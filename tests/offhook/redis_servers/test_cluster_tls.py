"""A cluster is reached through TLS: `clusters://`.

The server that the tests have has no TLS, so each node tells clients the port of a link that has.
`python -m tests.chaos.cluster_tls` tries nodes that speak nothing else.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis

from offhook.connection import connect, connect_rq, server_urls
from tests.installation import wait_until
from tests.links import Link
from tests.valkey_cluster import Node, ValkeyCluster

pytestmark = pytest.mark.anyio

NAMES = [f"name-{number}" for number in range(20)]  # on both nodes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def links(folder: Path) -> Iterator[list[Link]]:
    """A link to each node of a cluster; `ca.pem` has their authorities."""
    with ExitStack() as stack:
        nodes, links = [], []
        for number in range(2):
            nodes.append(Node(folder))
            stack.callback(nodes[-1].kill)
            (folder / f"link-{number}").mkdir()
            links.append(Link(nodes[-1].port, folder / f"link-{number}"))
            stack.callback(links[-1].close)
        ValkeyCluster.of(nodes, replicas=0)
        for node, link in zip(nodes, links, strict=True):
            node.do("CONFIG", "SET", "cluster-announce-port", link.port)
        ports = {link.port for link in links}

        def told() -> bool:
            said = [node.do("CLUSTER SLOTS") for node in nodes]
            return all({primary[1] for _, _, primary, *_ in each} == ports for each in said)

        wait_until(told, "the nodes tell the ports of the links")
        authorities = [path.read_text() for path in sorted(folder.glob("link-*/ca.pem"))]
        (folder / "ca.pem").write_text("".join(authorities))
        yield links


async def _set_all(client: Redis) -> None:
    for name in NAMES:
        await client.set(name, "it")


async def test_every_node_is_reached_through_tls(links: list[Link], folder: Path) -> None:
    plain = f"clusters://127.0.0.1:{links[0].port}/"
    url = f"{plain}?ssl_ca_certs={folder}/ca.pem"
    async with connect(url) as client:
        await _set_all(client)
    before = [link.encrypted for link in links]
    assert min(before) > 0
    with connect_rq(url) as blocking:
        assert [blocking.get(name) for name in NAMES] == [b"it"] * 20
    assert all(link.encrypted > count for link, count in zip(links, before, strict=True))
    for each in server_urls(url):
        with connect_rq(each) as node:
            assert node.ping()


async def test_a_node_with_an_unknown_certificate_is_not_used(
    links: list[Link], folder: Path
) -> None:
    for trusted in ("", f"?ssl_ca_certs={folder}/link-0/ca.pem"):
        url = f"clusters://127.0.0.1:{links[0].port}/{trusted}"
        async with connect(url, tries=0) as client:
            with pytest.raises(redis.ConnectionError, match=r"(?i)certificate"):
                await _set_all(client)
        with (
            connect_rq(url, tries=0) as blocking,
            pytest.raises(redis.ConnectionError, match=r"(?i)certificate"),
        ):
            _ = [blocking.set(name, "it") for name in NAMES]
