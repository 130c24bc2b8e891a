"""Faults of the Redis server and of what it holds."""

import asyncio
import signal
import time
from contextlib import suppress
from random import Random

import msgspec
import redis

from offhook.connection import connect, connect_rq
from offhook.errors import InboxUnavailable
from offhook.inbox import Inbox
from offhook.inbox.entries import Batch
from tests.chaos.earlier_layout import PARTITIONS, to_earlier_layout
from tests.chaos.scene import NothingToStrike, Scene
from tests.installation import wait_until

_POISON = (b"\xff not JSON", b'{"type":"of-a-later-version"}', b"{}", b"[" * 5000)


def flush_scripts(scene: Scene, dice: Random) -> None:
    with scene.offhook.client() as client:
        client.script_flush()


def kill_connections(scene: Scene, dice: Random) -> None:
    with scene.offhook.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
        client.client_kill_filter(_type="pubsub", skipme=True)


def partition_replica(scene: Scene, dice: Random) -> None:
    """Cut the primary off from its replica and the Sentinels, who promote the replica.

    Workers either go on with the primary that they are connected to, or stop meanwhile: then an
    event that only this primary had is lost, if it was answered 200. If the first server is a
    replica by now, only the replication is cut.
    """
    assert scene.replicated is not None
    replicated, stops, seconds = scene.replicated, dice.random() < 0.5, dice.uniform(2, 5)
    with replicated.partitioned():
        if stops:
            scene.offhook.signal_supervisors(signal.SIGSTOP)
        time.sleep(seconds)
        with suppress(AssertionError):  # on a busy machine the Sentinels may not agree
            wait_until(replicated.is_failed_over, "the replica is promoted", 15)
    scene.offhook.signal_supervisors(signal.SIGCONT)


def poison_stream(scene: Scene, dice: Random) -> None:
    """Append what cannot be decoded, such as an event of a later version, to some streams."""
    poison = [
        Batch(f"poison-{dice.random()}", 1, partition, [f"{dice.random()}"], [msgspec.Raw(entry)])
        for partition, entry in zip(dice.sample(range(PARTITIONS), 4), _POISON, strict=True)
    ]

    async def append() -> None:
        async with connect(scene.offhook.redis_url) as client:
            for batch in poison:
                await Inbox(client, PARTITIONS).append(batch, 60)

    try:
        asyncio.run(append())
    except InboxUnavailable as error:
        raise NothingToStrike from error


def upgrade(scene: Scene, dice: Random) -> None:
    """Start on an inbox of the version before, which fills meanwhile.

    What was read, parked and scheduled so far is put into that version's layout, as if its workers
    had run until now.
    """
    scene.offhook.kill_supervisors()
    try:
        wait_until(lambda: _moved_back(scene), "the inbox is in the earlier layout", 60)
        time.sleep(dice.uniform(0, 2))
    finally:
        scene.offhook.supervisor = scene.offhook.start_supervisor()


def _moved_back(scene: Scene) -> bool:
    try:
        with scene.offhook.client() as client, connect_rq(scene.offhook.redis_url) as rq:
            to_earlier_layout(client, rq)
    except redis.RedisError:
        return False  # the server is away: again
    return True
