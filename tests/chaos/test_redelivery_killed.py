"""Processes are killed during a redelivery, and the next attempt is made within seconds."""

import os
import signal
import time
from pathlib import Path

from rq import Worker
from rq.serializers import JSONSerializer

from offhook.connection import connect_rq
from tests.chaos.storm import deliveries
from tests.installation import Installation, children, wait_until

# Kill a work-horse during the first, a worker during the second, and both during the third.
HANDLERS = """
[handlers.crm]
use = "tests.chaos.handlers:linger_when_redelivered"
retry = [1, 3600, 3600]
timeout = 90
[handlers.chat]
use = "tests.chaos.handlers:linger_when_redelivered"
retry = [1, 3600, 3600]
timeout = 90
[handlers.mail]
use = "tests.chaos.handlers:linger_when_redelivered"
retry = [1, 3600, 3600]
timeout = 90
"""
NAMES = ("crm", "chat", "mail")


def test_killed_redelivery_is_retried_soon(tmp_path: Path) -> None:
    with Installation.running(tmp_path, HANDLERS) as offhook:
        outcome = offhook.load(2, per_call=2)
        assert outcome.count == 2
        for name in NAMES:
            wait_until((offhook.output / f"lingering-{name}").exists, "the second attempt is made")
        for pid in (
            *children(_worker(offhook, "crm")),
            _worker(offhook, "chat"),
            *children(_worker(offhook, "mail")),
            _worker(offhook, "mail"),
        ):
            os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        took = {}
        for name in NAMES:
            wait_until(lambda n=name: len(deliveries(offhook, n)) == 2, f"{name} has both events")  # type: ignore[misc]
            took[name] = time.monotonic() - killed
            assert [n for _, _, n, _ in deliveries(offhook, name)] == [0, 1]
        print(f"work-horse, worker, both killed: delivered within {took}")
        # Not after the minute in which RQ notices, nor after the hour in `retry`.
        assert max(took.values()) < 25


def _worker(offhook: Installation, handler: str) -> int:
    with connect_rq(offhook.redis_url) as redis:
        workers = Worker.all(connection=redis, serializer=JSONSerializer)
    [pid] = [w.pid for w in workers if w.name.startswith(f"offhook.{handler}.redeliver.")]
    assert pid is not None
    return pid
