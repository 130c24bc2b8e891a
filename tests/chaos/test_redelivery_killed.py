"""Processes are killed during a redelivery, and the next attempt is made within seconds."""

import os
import signal
from pathlib import Path

import pytest

from tests.chaos.audit import deliveries
from tests.installation import Installation, wait_until

HANDLERS = """
[handlers.crm]
use = "tests.chaos.handlers:linger_when_redelivered"
retry = [1, 3600, 3600]
timeout = 90
"""


@pytest.mark.parametrize("killed", ["work-horse", "worker", "both"])
def test_killed_redelivery_is_retried_soon(tmp_path: Path, killed: str) -> None:
    with Installation.running(tmp_path, HANDLERS, processes=1) as offhook:
        outcome = offhook.load(2, per_call=2)
        assert outcome.count == 2
        wait_until((offhook.output / "lingering-crm").exists, "the second attempt is made")
        horses, workers = offhook.serving(), offhook.workers()
        for pid in (horses if killed != "worker" else []) + (
            workers if killed != "work-horse" else []
        ):
            os.kill(pid, signal.SIGKILL)
        # Not after the minute in which RQ notices, nor after the hour in `retry`.
        wait_until(lambda: len(deliveries(offhook, "crm")) == 2, "it has both events", 45)
        assert [n for _, _, n, _ in deliveries(offhook, "crm")] == [0, 1]
