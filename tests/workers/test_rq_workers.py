"""Workers run only jobs of Offhook, whatever is in their queue, and lose no signal to stop."""

import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.serializers import JSONSerializer

from offhook import queues
from workers import serve
from workers.delivery.steps import StepPage
from workers.isolation import ProcessWatch
from workers.rq_workers import OffhookWorker, ServeWorker


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


class AskedBeforeTheFork(ServeWorker):
    def fork_work_horse(self, job: Any, queue: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        super().fork_work_horse(job, queue)


class AskedAfterTheFork(ServeWorker):
    def main_work_horse(self, job: Any, queue: Any) -> None:
        time.sleep(0.5)
        super().main_work_horse(job, queue)

    def wait_for_horse(self) -> tuple[Any, Any, Any]:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return super().wait_for_horse()


@pytest.mark.parametrize("worker_class", [AskedBeforeTheFork, AskedAfterTheFork])
def test_a_worker_that_is_stopped_as_it_forks_stops_its_work_horse(
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    worker_class: type[ServeWorker],
) -> None:
    went_on = tmp_path / "went-on"

    def serve_on(pool: str, servers: int) -> None:
        time.sleep(10)
        went_on.touch()

    monkeypatch.setattr(serve, "serve", serve_on)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with Redis.from_url(redis_url) as redis:
        target = queues.queue(queues.serve_queue(""), redis)
        queues.call_serve(redis, "", 1)
        worker = worker_class([target], connection=redis, serializer=JSONSerializer)
        page = StepPage()
        worker.watch, worker.inbox, worker.pool = ProcessWatch(page, redis, 1 << 40), redis, ""
        try:
            worker.work(burst=True, logging_level="CRITICAL")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            assert page.stacks is not None
            page.stacks.close()
        assert worker.asked_to_stop
        assert not went_on.exists()
