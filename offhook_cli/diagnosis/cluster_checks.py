"""Checks of a cluster as a whole; each primary is checked as a server, too."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from offhook.connection import connect_rq, server_urls
from offhook.operations.server_check import RedisServer
from offhook.redis_servers.redis_url import read_cluster_url
from offhook_cli.diagnosis.findings import Finding, failed, passed, warned

_SLOTS = 16_384
_FEWEST = 3  # primaries: a majority of them must agree that one has failed
_SLOWEST = 3000  # ms; the failover takes 2 s more, and a lease lasts 8 s


@dataclass(frozen=True)
class SeenCluster:
    """What a node says about its cluster.

    Attributes:
        info: `CLUSTER INFO`.
        nodes: `CLUSTER NODES`, by address.
        timeout: its `cluster-node-timeout` in ms; None if it does not say.
    """

    info: Mapping[str, str]
    nodes: Mapping[str, Mapping[str, Any]]
    timeout: int | None

    @property
    def primaries(self) -> dict[str, str]:
        """The address of each primary that has slots, by its id."""
        return {
            node["node_id"]: address
            for address, node in self.nodes.items()
            if node["slots"] and "fail" not in node["flags"].split(",")
        }


def look_at(server: RedisServer) -> SeenCluster | None:
    """Ask a node of a cluster; None if the server is not one.

    Raises:
        RedisError: none answers, or not in words that Offhook knows.
    """
    if read_cluster_url(server.url) is None:
        return None
    with connect_rq(server_urls(server.url, tries=1)[0], tries=1) as redis:
        info: Any = redis.cluster("INFO")
        nodes: Any = redis.cluster("NODES")
        return SeenCluster(info, nodes, _timeout(redis))


def _timeout(redis: Redis) -> int | None:
    try:
        found: Any = redis.config_get("cluster-node-timeout")
    except ResponseError:  # forbidden by an ACL, or no such command
        return None
    return int(found["cluster-node-timeout"])


def state(seen: SeenCluster) -> Iterator[Finding]:
    """Every slot is served."""
    served = int(seen.info.get("cluster_slots_ok", 0))
    if seen.info.get("cluster_state") != "ok" or served < _SLOTS:
        yield failed(
            f"serves {served} of {_SLOTS} slots: events of the others wait in the journals; start "
            "the nodes that are missing, or give their slots to others"
        )
    else:
        yield passed(f"serves all slots on {len(seen.primaries)} primaries")


def nodes_that_fail(seen: SeenCluster) -> Iterator[Finding]:
    """Every node is there."""
    for address, node in seen.nodes.items():
        flags = node["flags"].split(",")
        if {"fail", "fail?", "noaddr"} & {*flags}:
            yield failed(f"node {address} does not answer the others: start it, or forget it")


def failover(seen: SeenCluster) -> Iterator[Finding]:
    """It survives the failure of any node, within seconds."""
    primaries = seen.primaries
    replicas = Counter(
        node["master_id"]
        for node in seen.nodes.values()
        if "slave" in node["flags"].split(",") and node["connected"]
    )
    alone = sorted(address for id_, address in primaries.items() if not replicas[id_])
    if len(primaries) < _FEWEST:
        yield warned(
            f"has {len(primaries)} primaries: it cannot replace one that fails; a majority of at "
            f"least {_FEWEST} has to agree that it has"
        )
    for address in alone:
        yield warned(
            f"primary {address} has no replica: if it fails, its events wait until it is back"
        )
    if len(primaries) >= _FEWEST and not alone:
        yield passed("each primary has a replica")
    if seen.timeout is not None and seen.timeout > _SLOWEST:
        yield warned(
            f"replaces a primary only {seen.timeout / 1000:g} s after it has failed "
            f"(cluster-node-timeout): set it to {_SLOWEST} or less, so that deliveries go on sooner"
        )


def moving(seen: SeenCluster) -> Iterator[Finding]:
    """No slot is stuck between two nodes."""
    for address, node in seen.nodes.items():
        for each in node["migrations"]:
            yield warned(
                f"slot {each['slot']} is being moved key by key (node {address}): a partition in "
                "it waits until that is finished"
            )


CHECKS = (state, nodes_that_fail, failover, moving)
