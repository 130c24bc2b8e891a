"""Workers run only jobs of Offhook, whatever is in their queue."""

import logging
from pathlib import Path

import pytest
from redis import Redis
from rq.serializers import JSONSerializer

from offhook import queues
from workers.rq_workers import OffhookWorker


def test_worker_refuses_a_job_that_is_not_ours(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = tmp_path / "made"
    with Redis.from_url(redis_url) as redis:
        target = queues.queue(queues.SCHEDULED, redis)
        job = target.enqueue("os.mkdir", str(made))
        worker = OffhookWorker([target], connection=redis, serializer=JSONSerializer)
        worker.log.setLevel(logging.CRITICAL)
        worker.work(burst=True, logging_level="CRITICAL")
        assert not made.exists()
        assert job.is_failed
