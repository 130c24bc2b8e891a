"""SAQ: a job for each event."""

import os
from typing import Any

import job
from saq import Queue

queue = Queue.from_url(os.environ["REDIS_URL"])


async def handle(context: Any, *, event: dict[str, str]) -> None:
    await job.handle_async(event)


async def enqueue(events: list[dict[str, str]]) -> None:
    for event in events:
        await queue.enqueue("handle", event=event, ttl=-1)


settings = {
    "queue": queue,
    "functions": [handle],
    "concurrency": int(os.environ.get("CONCURRENCY", "16")),
}
