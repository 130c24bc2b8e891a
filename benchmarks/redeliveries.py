"""What Offhook's redeliveries and the retry of its dead letters take."""

import asyncio
import time

import redis

from benchmarks.engines import OFFHOOK, bench, ended
from benchmarks.machine import until
from benchmarks.rounds import Figures
from offhook.connection import opened
from offhook.operations import dead_letters
from offhook.settings import load_settings


def redelivering(url: str, count: int) -> Figures:
    """Measure redeliveries of as many events as `count`, all due at one moment."""
    with bench(url, "again", 64) as measured:
        measured.environment["DUE"] = str(2 + count / 1000)
        measured.fill(OFFHOOK, 2 * count)
        with ended(measured.work(OFFHOOK)) as worker:
            began, cpu = time.perf_counter(), worker.cpu()
            if (first := measured.wait(worker, count + 1, 120)) < 2 * count:
                began, cpu = time.perf_counter(), worker.cpu()
            else:  # all are delivered by the time that this process looks
                first = 0
            done = measured.wait(worker, 2 * count, 300) - first
            seconds = time.perf_counter() - began
            return {"per second": done / seconds, "us": (worker.cpu() - cpu) / done * 1e6}


def retrying(url: str, count: int) -> Figures:
    """Measure the retry of dead letters, from the command until the last is delivered."""
    with bench(url, "refuse", 64) as measured:
        (refuse := measured.folder / "refuse").touch()
        measured.fill(OFFHOOK, count)
        with ended(measured.work(OFFHOOK)) as worker, redis.Redis.from_url(url) as client:
            began = time.perf_counter()
            until(lambda: dead_letters.counts(client, ["crm"])["crm"] >= count, "all died", 300)
            dying = time.perf_counter() - began
            time.sleep(1)  # the last ones are acknowledged
            refuse.unlink()
            began = time.perf_counter()
            asyncio.run(_retry())
            retried = time.perf_counter() - began
            measured.wait(worker, count, 300)
            seconds = time.perf_counter() - began
            return {"dying s": dying, "retry s": retried, "all s": seconds}


async def _retry() -> None:
    async with opened(load_settings()) as (inbox, rq):
        await dead_letters.retry(inbox, rq, list(dead_letters.find(rq)))
