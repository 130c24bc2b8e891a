"""Memory of each process, and of the server per stored event and per call.

    python -m benchmarks.memory [--quick]

Proportional set size: memory that processes share is divided among them. The workers share
everything that was imported before they were forked.

A call has two legs, each dialled, answered and hung up, and one of 300,000 callers. Its events come
at three times, so the record of their deliveries is written at three times.
"""

import asyncio
import random
import time
from collections import Counter

import redis

from benchmarks.calls import append, events_of
from benchmarks.engines import OFFHOOK, bench, ended, handlers
from benchmarks.load import callbacks, drive
from benchmarks.machine import Running, listens, offhook, running, server, until
from benchmarks.receive import URLS
from benchmarks.rounds import arguments, table
from offhook.inbox import keys
from offhook_cli.embedded_server import free_port

_KINDS = {  # what there is of a call, and the kinds of keys that have it
    "events": ("inbox",),
    "call": ("call", "calls"),
    "index": ("index",),
    "record": ("tried", "recorded", "failures"),
}


def _rows(what: str, process: Running) -> list[tuple[str, str]]:
    sizes = sorted(process.memory().values(), reverse=True)
    each = ", ".join(f"{size / 2**20:.0f}" for size in sizes)
    return [(f"{what} ({len(sizes)} processes: {each})", f"{sum(sizes) / 2**20:.0f} MB")]


def _bytes_per_call(url: str, count: int, handler_count: int) -> dict[str, float]:
    """What the server keeps of a call that has ended, in bytes, all of it and by kind."""
    more = handlers(handler_count - 1, interested=True)
    with redis.Redis.from_url(url) as client, bench(url, "nothing", 16, more=more) as measured:
        until(lambda: not client.info("memory")["lazyfree_pending_objects"], "memory is freed")
        measured.environment |= {"OFFHOOK_PARTITIONS": "1", "OFFHOOK_SETTLE": "0"}
        with ended(measured.work(OFFHOOK)) as workers:
            until(lambda: client.hlen(keys.known(0)) >= handler_count, "the handlers have begun")
            time.sleep(1)
            before = client.info("memory")["used_memory"]
            some = random.Random(count)
            numbers = (f"+44{10**9 + some.randrange(300_000)}" for _ in range(count))
            calls = [events_of(str(n), 2, number) for n, number in enumerate(numbers)]
            for step in range(3):
                events = [each for call in calls for each in call[2 * step : 2 * step + 2]]
                asyncio.run(append(url, events))
                measured.wait(workers, 2 * count * (step + 1) * handler_count, 300)
            until(lambda: not client.exists(keys.live(0), keys.unfinished(0)), "all have ended", 90)
            found = {"all": (client.info("memory")["used_memory"] - before) / count}
        sizes: Counter[str] = Counter()
        for name in client.scan_iter("offhook:{0}:*", count=1000):
            sizes[name.split(b":")[2].decode()] += client.memory_usage(name, samples=0)
    return found | {
        what: sum(sizes[kind] for kind in kinds) / count for what, kinds in _KINDS.items()
    }


def main() -> None:
    given = arguments(
        __doc__ or "", events=(50_000, "events in the inbox"), calls=(5_000, "calls that are kept")
    )
    count, calls = (1_000, 50) if given.quick else (given.events, given.calls)
    rows = []
    with server() as url:
        port = free_port()
        with bench(url, "nothing", 16) as measured:
            serve = offhook("serve", "--port", str(port))
            with running(serve, measured.log, measured.environment) as receiver:
                until(lambda: listens(port), "the receiver listens")
                drive(port, callbacks(URLS), 0.1)
                rows += _rows("offhook serve, at startup", receiver)
                drive(port, callbacks(URLS), 0.5 if given.quick else 10)
                rows += _rows("offhook serve, under full load", receiver)
        with bench(url, "nothing", 16) as measured:
            with redis.Redis.from_url(url) as client:
                # The server frees deleted data in the background.
                until(
                    lambda: not client.info("memory")["lazyfree_pending_objects"],
                    "the server has freed its memory",
                )
                before = client.info("memory")["used_memory"]
                measured.fill(OFFHOOK, count)
                each = (client.info("memory")["used_memory"] - before) / count
            with ended(measured.work(OFFHOOK)) as workers:
                measured.rate(workers, count)
                rows += _rows("offhook work, one handler, busy", workers)
                time.sleep(0.5 if given.quick else 7)
                rows += _rows("offhook work, one handler, idle", workers)
        rows.append(("the server, per stored event", f"{each:,.0f} bytes"))
        for handler_count in (3,) if given.quick else (1, 3):
            found = _bytes_per_call(url, calls, handler_count)
            parts = ", ".join(f"{what} {found[what]:,.0f}" for what in _KINDS)
            what = f"the server, per call, {handler_count} handlers ({parts})"
            rows.append((what, f"{found['all']:,.0f} bytes"))
    table("Memory", ("", "memory"), rows)


if __name__ == "__main__":
    main()
