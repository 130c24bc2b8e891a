"""taskiq: a task for each event."""

import os

import job
from taskiq_redis import ListQueueBroker

broker = ListQueueBroker(os.environ["REDIS_URL"])


@broker.task
async def handle(event: dict[str, str]) -> None:
    await job.handle_async(event)


async def enqueue(events: list[dict[str, str]]) -> None:
    for event in events:
        await handle.kiq(event)
