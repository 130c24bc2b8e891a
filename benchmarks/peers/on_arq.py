"""arq: a job for each event."""

import os
from typing import Any

import job
from arq import create_pool
from arq.connections import RedisSettings

redis_settings = RedisSettings.from_dsn(os.environ["REDIS_URL"])
_pool: Any = None


async def handle(context: Any, event: dict[str, str]) -> None:
    await job.handle_async(event)


async def enqueue(events: list[dict[str, str]]) -> None:
    global _pool
    _pool = _pool or await create_pool(redis_settings)
    for event in events:
        await _pool.enqueue_job("handle", event)


class WorkerSettings:
    functions = (handle,)
    redis_settings = redis_settings
    max_jobs = int(os.environ.get("CONCURRENCY", "16"))
    keep_result = 0
