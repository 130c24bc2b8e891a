"""The handlers that Offhook runs in the benchmarks; the jobs of the peers do the same."""

from benchmarks.peers import job
from offhook import CallEvent, Context


async def nothing(event: CallEvent, context: Context) -> None:
    job.count()


async def wait(event: CallEvent, context: Context) -> None:
    await job.wait()


async def record(event: CallEvent, context: Context) -> None:
    job.record(event.call_id, event.status or "", event.received.timestamp())


async def linger(event: CallEvent, context: Context) -> None:
    await job.linger(event.call_id, event.status or "", event.received.timestamp())
