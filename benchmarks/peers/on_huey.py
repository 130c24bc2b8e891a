"""huey: a task for each event."""

import os

import job
from huey import RedisHuey

huey = RedisHuey(url=os.environ["REDIS_URL"], results=False)


@huey.task()
def handle(event: dict[str, str]) -> None:
    job.handle(event)


def enqueue(events: list[dict[str, str]]) -> None:
    for event in events:
        handle(event)
