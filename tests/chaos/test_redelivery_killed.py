"""What redelivers is killed in the middle of an attempt: the next attempt comes within seconds."""

import os
import signal
import time
from pathlib import Path

import pytest
from rq import Worker
from rq.serializers import JSONSerializer

from offhook.connection import connect_rq
from tests.chaos.storm import deliveries
from tests.installation import Installation, children, wait_until

HANDLERS = """
[handlers.crm]
use = "tests.chaos.handlers:linger_when_redelivered"
retry = [1, 3600, 3600]
timeout = 90
"""


@pytest.mark.parametrize("whom", ["work-horse", "worker", "both"])
def test_the_next_attempt_comes_soon(tmp_path: Path, whom: str) -> None:
    with Installation.running(tmp_path, HANDLERS) as offhook:
        outcome = offhook.load(2, per_call=2)
        assert outcome.count == 2
        wait_until((offhook.output / "lingering").exists, "the second attempt is made")
        with connect_rq(offhook.redis_url) as redis:
            workers = Worker.all(connection=redis, serializer=JSONSerializer)
        [worker] = [w.pid for w in workers if w.name.startswith("offhook.crm.redeliver.")]
        assert worker is not None
        [horse] = children(worker)
        for pid in {"work-horse": [horse], "worker": [worker], "both": [worker, horse]}[whom]:
            os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_until(lambda: len(deliveries(offhook, "crm")) == 2, "both events are delivered")
        took = time.monotonic() - killed
        print(f"{whom} killed: delivered after {took:.1f} s")
        assert [n for _, _, n, _ in deliveries(offhook, "crm")] == [0, 1]
        assert took < 25  # not the minute after which RQ notices, and not the hour of `retry`
