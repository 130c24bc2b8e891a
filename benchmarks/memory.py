"""Memory of each process, and of the server per stored event.

    python -m benchmarks.memory [--quick]

Proportional set size: memory that processes share is divided among them. The workers share
everything that was imported before they were forked.
"""

import time

import redis

from benchmarks.engines import OFFHOOK, bench, ended
from benchmarks.load import callbacks, drive
from benchmarks.machine import Running, listens, offhook, running, server, until
from benchmarks.receive import URLS
from benchmarks.rounds import arguments, table
from offhook_cli.embedded_server import free_port


def _rows(what: str, process: Running) -> list[tuple[str, str]]:
    sizes = sorted(process.memory().values(), reverse=True)
    each = ", ".join(f"{size / 2**20:.0f}" for size in sizes)
    return [(f"{what} ({len(sizes)} processes: {each})", f"{sum(sizes) / 2**20:.0f} MB")]


def main() -> None:
    given = arguments(__doc__ or "", events=(50_000, "events in the inbox"))
    count = 1_000 if given.quick else given.events
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
                time.sleep(7)
                rows += _rows("offhook work, one handler, idle", workers)
    rows.append(("the server, per stored event", f"{each:,.0f} bytes"))
    table("Memory", ("", "memory"), rows)


if __name__ == "__main__":
    main()
