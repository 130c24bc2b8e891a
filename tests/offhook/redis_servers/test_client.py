"""The clients of a cluster, with a real one: commands, slots that move, and nodes that fail."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError, WatchError

from offhook.connection import connect, connect_rq
from offhook.errors import InboxUnavailable
from offhook.inbox import Inbox
from offhook.redis_servers import BlockingCluster, Cluster
from offhook.redis_servers.slots import slot_of_key
from tests.events import batch_of, event
from tests.installation import wait_until
from tests.valkey_cluster import Moving, Node, ValkeyCluster

NAMES = [f"name-{number}" for number in range(20)]  # on all nodes


@pytest.fixture(autouse=True)
def whole(valkey_cluster: ValkeyCluster) -> Iterator[None]:
    """Leave the cluster as it was."""
    yield
    for node in valkey_cluster.nodes:
        if not node.runs:
            node.start()
    valkey_cluster.wait_for_replicas()
    for node in valkey_cluster.nodes:
        if node.is_primary():
            node.do("FLUSHALL")


@pytest.fixture
async def client(valkey_cluster: ValkeyCluster) -> AsyncIterator[Cluster]:
    async with connect(valkey_cluster.url) as connected:
        assert isinstance(connected, Cluster)
        yield connected


def _other(cluster: ValkeyCluster, node: Node) -> Node:
    return next(each for each in cluster.nodes if each.is_primary() and each is not node)


def _moving(cluster: ValkeyCluster, key: str) -> Moving:
    slot = slot_of_key(key)
    return cluster.begin_moving(slot, _other(cluster, cluster.primary_of(slot)))


async def test_commands_reach_the_keys_wherever_they_are(client: Cluster) -> None:
    async with client.pipeline(transaction=False) as pipeline:
        for name in NAMES:
            pipeline.set(name, name)
        for name in NAMES:
            pipeline.get(name)
        assert await pipeline.execute() == [True] * 20 + [name.encode() for name in NAMES]
    assert await client.mget(*NAMES, "none") == [*(name.encode() for name in NAMES), None]
    assert await client.exists(*NAMES, "none") == 20
    assert {key async for key in client.scan_iter("name-*")} == {name.encode() for name in NAMES}
    assert len(await client.nodes.primaries()) == 3
    assert await client.delete(*NAMES) == 20
    assert await client.time()


async def test_transaction_keeps_to_one_slot(client: Cluster) -> None:
    async with client.pipeline(transaction=True) as pipeline:
        pipeline.set("{x}a", 1)
        pipeline.incr("{x}a")
        assert await pipeline.execute() == [True, 2]
        pipeline.set("{x}a", 1)
        pipeline.set("{y}a", 1)
        with pytest.raises(ResponseError, match="CROSSSLOT"):
            await pipeline.execute()
    assert await client.get("{x}a") == b"2"


async def test_change_of_a_watched_key_is_noticed(client: Cluster) -> None:
    async with client.pipeline(transaction=True) as pipeline:
        await pipeline.watch("{x}a")
        assert await pipeline.get("{x}a") is None
        await client.set("{x}a", 1)
        pipeline.multi()  # type: ignore[no-untyped-call]
        pipeline.set("{x}a", 2)
        with pytest.raises(WatchError):
            await pipeline.execute()
    assert await client.get("{x}a") == b"1"


async def test_node_that_does_not_know_a_script_gets_it(
    client: Cluster, valkey_cluster: ValkeyCluster
) -> None:
    add = client.register_script("return redis.call('INCR', KEYS[1])")
    for _ in range(2):
        assert await asyncio.gather(*(add(keys=[name]) for name in NAMES))
        for node in valkey_cluster.nodes:
            node.do("SCRIPT", "FLUSH")
    async with client.pipeline(transaction=False) as pipeline:
        for name in NAMES:
            await add(keys=[name], client=pipeline)
        assert await pipeline.execute() == [3] * 20


async def test_keys_of_a_slot_that_is_being_moved_are_found_on_either_node(
    client: Cluster, valkey_cluster: ValkeyCluster
) -> None:
    await client.set("{x}old", 1)
    moving = _moving(valkey_cluster, "{x}")
    assert await client.set("{x}new", 2)
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.get("{x}new")
        pipeline.get("{x}old")
        pipeline.get("y")
        assert await pipeline.execute() == [b"2", b"1", None]
    moving.end()
    assert await client.mget("{x}new", "{x}old") == [b"2", b"1"]


async def test_script_does_all_or_nothing_while_its_slot_is_being_moved(
    client: Cluster, valkey_cluster: ValkeyCluster
) -> None:
    both = client.register_script(
        "redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[1] .. ':not declared')"
    )
    await client.set("{x}a", 1)
    moving = _moving(valkey_cluster, "{x}")
    with pytest.raises(RedisConnectionError, match="non local key"):
        await both(keys=["{x}a"])
    assert await client.get("{x}a") == b"1"
    moving.end()
    assert await both(keys=["{x}a"]) == 1
    assert await client.get("{x}a") == b"2"


async def test_command_waits_for_a_slot_that_is_moved_meanwhile(
    client: Cluster, valkey_cluster: ValkeyCluster
) -> None:
    async with connect(valkey_cluster.url, tries=50) as patient:
        await client.set("{x}a", 1)
        moving = _moving(valkey_cluster, "{x}")
        both = asyncio.ensure_future(patient.mget("{x}a", "{x}b"))
        await asyncio.sleep(0.2)
        assert not both.done()
        await asyncio.to_thread(moving.end)
        assert await both == [b"1", None]


async def test_blocked_read_follows_its_slot(
    client: Cluster, valkey_cluster: ValkeyCluster
) -> None:
    async with connect(valkey_cluster.url, tries=0) as waiting:
        slot = slot_of_key("{x}marks")
        read = asyncio.ensure_future(waiting.bzmpop(20, 1, ["{x}marks"], min=True))
        await asyncio.sleep(0.2)
        source = valkey_cluster.primary_of(slot)
        await asyncio.to_thread(valkey_cluster.migrate, slot, _other(valkey_cluster, source))
        await client.zadd("{x}marks", {"a": 1})
        assert await read == [b"{x}marks", [[b"a", b"1"]]]


async def test_failover_costs_time_only(client: Cluster, valkey_cluster: ValkeyCluster) -> None:
    await asyncio.gather(*(client.set(name, name) for name in NAMES))
    failing = valkey_cluster.primary_of(slot_of_key(NAMES[0]))
    theirs = [name for name in NAMES if valkey_cluster.primary_of(slot_of_key(name)) is failing]
    async with (
        connect(valkey_cluster.url, tries=100) as patient,
        connect(valkey_cluster.url, tries=0) as impatient,
    ):
        await impatient.mget(*NAMES)  # it knows the nodes, and so asks the one that fails
        failing.signal(signal.SIGSTOP)  # so that it holds connections open and does not answer
        try:
            for name in NAMES:  # a dead node holds up no command for another one
                if name not in theirs:
                    assert await client.get(name) == name.encode()
            async with impatient.pipeline(transaction=False) as pipeline:
                for name in NAMES:
                    pipeline.get(name)
                found = await pipeline.execute(raise_on_error=False)
            for name, value in zip(NAMES, found, strict=True):
                assert isinstance(value, Exception) == (name in theirs)
            await asyncio.to_thread(
                wait_until,
                lambda: valkey_cluster.primary_of(slot_of_key(NAMES[0])) is not failing,
                "a replica is promoted",
            )
            assert await patient.mget(*NAMES) == [name.encode() for name in NAMES]
            while isinstance(await _tried(impatient), Exception):
                await asyncio.sleep(0.1)  # it learns from its failures
        finally:
            failing.signal(signal.SIGCONT)
    with connect_rq(valkey_cluster.url) as blocking:
        assert [blocking.get(name) for name in NAMES] == [name.encode() for name in NAMES]


async def _tried(client: Redis) -> object:
    try:
        return await client.get(NAMES[0])
    except RedisConnectionError as error:
        return error


async def test_replicas_of_the_right_primary_confirm_an_append(
    client: Cluster, valkey_cluster: ValkeyCluster
) -> None:
    inbox = Inbox(client, 3, "replica", 1)
    await inbox.append(batch_of(event("a", 1)), 60)
    partition = batch_of(event("a", 1)).partition
    primary = valkey_cluster.primary_of(slot_of_key(f"{{{partition}}}"))
    replica = next(
        node
        for node in valkey_cluster.nodes
        if str(primary.port) in str(node.do("INFO", "replication")) and node is not primary
    )
    replica.kill()
    wait_until(lambda: "connected_slaves:0" in _info(primary), "it is gone")
    with pytest.raises(InboxUnavailable, match="0 of 1 replicas"):
        await inbox.append(batch_of(event("a", 2)), 60, patience=0.3)


def _info(node: Node) -> str:
    return str(node.do("INFO", "replication")).replace("'", "").replace(": ", ":")


async def test_error_of_a_command_is_its_own(client: Cluster) -> None:
    await client.set("a", 1)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await client.hget("a", "field")
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.hget("a", "field")
        pipeline.get("a")
        failed, value = await pipeline.execute(raise_on_error=False)
    assert isinstance(failed, ResponseError)
    assert value == b"1"


def test_blocking_client_does_the_same(valkey_cluster: ValkeyCluster) -> None:
    with connect_rq(valkey_cluster.url) as client:
        assert isinstance(client, BlockingCluster)
        with client.pipeline(transaction=False) as pipeline:
            for name in NAMES:
                pipeline.set(name, name)
                pipeline.get(name)
            assert pipeline.execute() == [each for name in NAMES for each in (True, name.encode())]
        script = client.register_script("return redis.call('GET', KEYS[1])")
        assert script(keys=[NAMES[0]]) == NAMES[0].encode()
        assert len(client.primaries()) == 3

        def set_it(transaction: Any) -> None:
            transaction.get("{x}a")
            transaction.multi()
            transaction.set("{x}a", 1)

        assert client.transaction(set_it, "{x}a")
        assert client.get("{x}a") == b"1"


async def test_cluster_that_does_not_answer_is_an_outage() -> None:
    url = "cluster://127.0.0.1:1,127.0.0.1:2/"
    async with connect(url) as client:
        with pytest.raises(RedisConnectionError):
            await client.get("a")
        async with client.pipeline() as pipeline:
            pipeline.get("a")
            with pytest.raises(RedisConnectionError):
                await pipeline.execute()
    with connect_rq(url) as blocking, pytest.raises(RedisConnectionError):
        blocking.get("a")


async def test_server_that_is_no_cluster_says_so(redis_url: str) -> None:
    async with connect(redis_url.replace("redis://", "cluster://")) as client:
        with pytest.raises(ResponseError, match="cluster support disabled"):
            await client.get("a")
