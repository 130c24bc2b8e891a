"""Celery: a task for each event, acknowledged when done."""

import os

import job
from celery import Celery

app = Celery(broker=os.environ["REDIS_URL"])
app.conf.task_ignore_result = True
app.conf.task_acks_late = True
app.conf.worker_prefetch_multiplier = 4
app.conf.broker_transport_options = {"visibility_timeout": 60}


@app.task
def handle(event: dict[str, str]) -> None:
    job.handle(event)


def enqueue(events: list[dict[str, str]]) -> None:
    for event in events:
        handle.delay(event)
