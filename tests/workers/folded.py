"""Fold the events in the inbox into calls, as the workers do."""

import asyncio

from offhook.settings import Settings
from tests.workers.serving.bench import Bench, until


async def until_folded(bench: Bench, *, settled: bool = True, closed: bool = False) -> None:
    """Wait until a bench's events are folded and finished.

    Args:
        settled: and no settle window is open.
        closed: and no call is live.
    """
    kinds = ["settling"] * settled + ["live"] * closed
    kept = [bench.key(kind, n) for kind in kinds for n in range(bench.partitions)]
    await until(
        lambda: not bench.unfinished() and not any(map(bench.redis.zcard, kept)),
        "events are folded",
    )


def fold(settings: Settings, *, settled: bool = True, closed: bool = False) -> None:
    """Serve no handler until every event is folded; see `until_folded`."""

    async def run() -> None:
        bench = Bench(settings.redis_url, settings.partitions)
        bench.settings = settings
        async with bench.serving():
            await until_folded(bench, settled=settled, closed=closed)
        bench.redis.close()

    asyncio.run(run())
