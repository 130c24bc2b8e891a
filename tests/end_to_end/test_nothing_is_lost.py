"""20,000 callbacks at full speed for three handlers; as many as it takes for a fault amid them."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.installation import Installation, Outcome, audit, wait_until
from tests.processes import runs

HANDLERS = """
[handlers.first]
use = "tests.recorders:record"
[handlers.second]
use = "tests.recorders:record_in_thread"
[handlers.third]
use = "tests.recorders:record"
concurrency = 2
"""
NAMES = ["first", "second", "third"]


def during(offhook: Installation, events: int, fault: Callable[[], None]) -> Outcome:
    """Run a load while workers serve, with a fault once a third of it is accepted."""
    outcome = Outcome()
    wait_until(lambda: len(offhook.serving()) > 0, "the workers serve")

    def strike() -> None:
        wait_until(lambda: outcome.count > events // 3, "a third is accepted", 60)
        fault()

    fault_thread = threading.Thread(target=strike)
    fault_thread.start()
    try:
        return offhook.load(events, outcome=outcome)
    finally:
        fault_thread.join()


def test_every_handler_gets_every_event_once_and_in_order(tmp_path: Path) -> None:
    with Installation.running(tmp_path, HANDLERS) as offhook:
        outcome = offhook.load(20_000)
        assert (outcome.count, outcome.refused) == (20_000, 0)
        offhook.wait_for_all(outcome, NAMES)
        for name in NAMES:
            audit(outcome, offhook.delivered(name), repeats=False)


def test_killed_workers_lose_nothing(tmp_path: Path) -> None:
    with Installation.running(tmp_path, HANDLERS) as offhook:

        def kill() -> None:
            for pid in offhook.serving():  # in the middle of deliveries
                os.kill(pid, signal.SIGKILL)
            time.sleep(1)
            for pid in offhook.workers():
                os.kill(pid, signal.SIGKILL)

        outcome = during(offhook, 10_000, kill)
        assert (outcome.count, outcome.refused) == (10_000, 0)
        offhook.wait_for_all(outcome, NAMES)
        for name in NAMES:
            audit(outcome, offhook.delivered(name), repeats=True)


def test_redis_restart_loses_no_accepted_event(tmp_path: Path) -> None:
    with Installation.running(tmp_path, HANDLERS) as offhook:
        outcome = during(offhook, 10_000, offhook.restart_redis)
        assert (outcome.count, outcome.refused) == (10_000, 0)
        offhook.wait_for_all(outcome, NAMES)
        for name in NAMES:
            audit(outcome, offhook.delivered(name), repeats=True)


def test_deploy_under_load_loses_nothing(tmp_path: Path) -> None:
    with Installation.running(tmp_path, HANDLERS) as offhook:

        def deploy() -> None:
            offhook.supervisor.send_signal(signal.SIGTERM)
            assert offhook.supervisor.wait(30) == 0
            offhook.supervisor = offhook.start_supervisor()

        outcome = during(offhook, 10_000, deploy)
        offhook.wait_for_all(outcome, NAMES)
        for name in NAMES:
            # The graceful stop finished and acknowledged the deliveries in flight.
            audit(outcome, offhook.delivered(name), repeats=False)


def test_killed_supervisor_leaves_no_process(tmp_path: Path) -> None:
    with Installation.running(tmp_path, HANDLERS) as offhook:
        outcome = offhook.load(100)
        offhook.wait_for_all(outcome, NAMES)
        family = [*offhook.workers(), *offhook.work_horses()]
        assert len(family) > len(NAMES)
        offhook.supervisor.kill()  # the kernel tells the children
        offhook.supervisor.wait()
        wait_until(lambda: not any(map(runs, family)), "the supervisor's children have ended")
