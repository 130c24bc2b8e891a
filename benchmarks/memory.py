"""What it takes of memory: each process, and the server for an event that it keeps.

    python -m benchmarks.memory [--quick]

Proportional set size: what processes share is divided among them. The workers share all that was
imported before they were forked.
"""

import time

import redis

from benchmarks.engines import bench, ended
from benchmarks.load import callbacks, drive
from benchmarks.machine import Running, free_port, listens, offhook, running, server, until
from benchmarks.receive import URLS
from benchmarks.rounds import arguments, table


def _rows(what: str, process: Running) -> list[tuple[str, str]]:
    sizes = sorted(process.memory().values(), reverse=True)
    each = ", ".join(f"{size / 2**20:.0f}" for size in sizes)
    return [(f"{what} ({len(sizes)} processes: {each})", f"{sum(sizes) / 2**20:.0f} MB")]


def main() -> None:
    given = arguments(__doc__ or "", events=(50_000, "how many"))
    count = 1_000 if given.quick else given.events
    rows = []
    with server() as url:
        port = free_port()
        with bench(url, "nothing", 16) as measured:
            serve = offhook("serve", "--port", str(port))
            with running(serve, measured.log, measured.environment) as receiver:
                until(lambda: listens(port), "the receiver listens")
                drive(port, callbacks(URLS), 0.1)
                rows += _rows("offhook serve, at its start", receiver)
                drive(port, callbacks(URLS), 0.5 if given.quick else 10)
                rows += _rows("offhook serve, under full load", receiver)
        with bench(url, "nothing", 16) as measured:
            with redis.Redis.from_url(url) as client:
                # What the server had before it forgets while it goes on.
                until(lambda: not client.info("memory")["lazyfree_pending_objects"], "it is empty")
                before = client.info("memory")["used_memory"]
                measured.fill_ours(count)
                each = (client.info("memory")["used_memory"] - before) / count
            with ended(measured.ours()) as workers:
                measured.rate(workers, count)
                rows += _rows("offhook work, one handler, at work", workers)
                time.sleep(7)  # the dispatch has ended
                rows += _rows("offhook work, one handler, quiet", workers)
    rows.append(("the server, for an event that it keeps", f"{each:,.0f} bytes"))
    table("Memory", ("", "takes"), rows)


if __name__ == "__main__":
    main()
