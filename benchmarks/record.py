"""Cost of the record of deliveries: throughput, memory, and the time to read it.

    python -m benchmarks.record [--quick] [--rounds N] [--only NAME ...]

A backlog is delivered by handlers that never fail, with `record = "all"`, and with `"failures"`,
which then records nothing. The server runs on the other core; its CPU time is in the table, too.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import redis
from msgspec.structs import replace

from benchmarks.engines import OFFHOOK, UNFOLDED, bench, ended, handlers
from benchmarks.machine import server
from benchmarks.rounds import Figures, arguments, interleaved, ratio, table
from offhook.connection import connect
from offhook.event import CallEvent, new_event_id
from offhook.inbox import Inbox
from offhook.inbox.entries import partition_of
from offhook.inbox.partition import Changes, Partition
from offhook.inbox.record import Record, WantedAttempts
from offhook.inbox.record_part import MOST_CALLS, AttemptMade, AttemptOutcome, RecordPart
from offhook.testing import sample_event

_PARTITIONS = 16
_LOADS = {  # engine, events, events of a call, other handlers
    "1 handler, not folded": (UNFOLDED, 200_000, 1, 0),
    "1 handler, 10 events a call": (OFFHOOK, 100_000, 10, 0),
    "1 handler, 1 event a call": (OFFHOOK, 60_000, 1, 0),
    "100 handlers": (OFFHOOK, 4_000, 1, 99),
}


def delivering(url: str, load: str, record: str, part: int) -> Figures:
    """Measure the deliveries of a backlog."""
    name, events, per_call, others = _LOADS[load]
    count = events // part * (1 + others)
    with (
        redis.Redis.from_url(url) as client,
        bench(url, "nothing", 16, more=handlers(others, interested=True)) as measured,
    ):
        measured.environment["OFFHOOK_RECORD"] = record
        measured.fill(name, events // part, per_call)
        before, size = _server_seconds(client), _used(client)
        with ended(measured.work(name)) as worker:
            rate, per_cpu = measured.rate(worker, count)
        return {
            "per second": rate,
            "per CPU-second": per_cpu,
            "server µs": (_server_seconds(client) - before) / count * 1e6,
            "bytes": (_used(client) - size) / count,
        }


def _server_seconds(client: Any) -> float:
    found = client.info("cpu")
    return float(found["used_cpu_user"] + found["used_cpu_sys"])


def _used(client: Any) -> float:
    return float(client.info("memory")["used_memory"])


def reading(url: str, calls: int) -> Figures:
    """Measure how long readers take when the record has one attempt at an event of each call."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
        size = _used(client)
        asyncio.run(_write(url, calls))
        each = (_used(client) - size) / calls
    return asyncio.run(_read(url)) | {"bytes per attempt": each}


async def _write(url: str, calls: int) -> None:
    """Record an attempt at an event of each call, as servers of 16 partitions do."""
    made = AttemptMade("crm", 1, 1_795_289_400_123, 2_345, AttemptOutcome.DELIVERED, "answered 200")
    event = sample_event()
    spread: list[list[CallEvent]] = [[] for _ in range(_PARTITIONS)]
    for number in range(calls):
        one = replace(event, id=new_event_id(), call_id=f"1795289400.{number}")
        spread[partition_of(one, _PARTITIONS)].append(one)
    async with connect(url) as client:
        for number in range(_PARTITIONS):
            partition = Partition(client, client, number)
            await partition.lease.take()
            for at in range(0, len(spread[number]), MOST_CALLS):
                part = RecordPart("")
                for one in spread[number][at : at + MOST_CALLS]:
                    part.add(one, made)
                await partition.numbered(Changes(record=[part]))()


async def _read(url: str) -> Figures:
    async with connect(url) as client:
        inbox = Inbox(client, _PARTITIONS)
        await inbox.numbering.load()
        record = Record(inbox)
        newest = await record.page(WantedAttempts(), 50)
        call = newest.attempts[-1].call
        readers: dict[str, Callable[[], Any]] = {
            "newest 50": partial(record.page, WantedAttempts(), 50),
            "one call": partial(record.page, WantedAttempts(call=call), 50),
            "page 2": partial(record.page, WantedAttempts(), 50, newest.following),
            "failures (none)": partial(
                record.page, WantedAttempts(outcomes=frozenset((AttemptOutcome.FAILED,))), 50
            ),
            "a handler without any": partial(record.page, WantedAttempts(handler="other"), 50),
        }
        figures = {}
        for name, read in readers.items():
            began = time.perf_counter()
            await read()
            figures[name] = (time.perf_counter() - began) * 1000
        return figures


def main() -> None:
    given = arguments(__doc__ or "", calls=(1_000_000, "calls whose record is read"))
    part = 50 if given.quick else 1
    with server() as url:
        contenders: dict[str, Callable[[], Figures]] = {
            f"{load}: {record}": partial(delivering, url, load, record, part)
            for load in _LOADS
            for record in ("failures", "all")
        }
        found = interleaved(contenders, given)
        rows = []
        for load in _LOADS:
            if {f"{load}: failures", f"{load}: all"} <= found.keys():
                without, recorded = found[f"{load}: failures"], found[f"{load}: all"]
                rows.append(
                    [
                        load,
                        *(f"{each['per CPU-second']:,.0f}" for each in (without, recorded)),
                        ratio(recorded["per CPU-second"], without["per CPU-second"]),
                        ratio(recorded["per second"], without["per second"]),
                        f"{without['server µs']:.1f}, {recorded['server µs']:.1f}",
                        f"{recorded['bytes'] - without['bytes']:.0f}",
                    ]
                )
        table(
            "The record of deliveries: failures (none), and all",
            (
                "",
                "failures, per CPU-second",
                "all, per CPU-second",
                "ratio",
                "ratio per second",
                "server, µs per delivery",
                "bytes per delivery",
            ),
            rows,
        )
        found = interleaved({"reading": partial(reading, url, given.calls // part)}, given)
        for figures in found.values():
            table(
                f"Reading the record of {given.calls // part:,} calls",
                ("", "ms, or bytes"),
                [(name, f"{value:,.1f}") for name, value in figures.items()],
            )


if __name__ == "__main__":
    main()
