"""RQ: a job for each event."""

import os

import job
from redis import Redis
from rq import Queue, Retry, SimpleWorker

queue = Queue("events", connection=Redis.from_url(os.environ["REDIS_URL"]))


def enqueue(events: list[dict[str, str]]) -> None:
    queue.enqueue_many(
        [Queue.prepare_data(job.handle, (event,), retry=Retry(max=3)) for event in events]
    )


if __name__ == "__main__":
    SimpleWorker([queue], connection=queue.connection).work(logging_level="WARNING")
