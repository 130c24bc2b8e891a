"""dramatiq: a message for each event."""

import os

import dramatiq
import job
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["REDIS_URL"]))


@dramatiq.actor
def handle(event: dict[str, str]) -> None:
    job.handle(event)


def enqueue(events: list[dict[str, str]]) -> None:
    for event in events:
        handle.send(event)
