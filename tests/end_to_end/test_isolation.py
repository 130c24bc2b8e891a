"""A handler that misbehaves is moved to a process of its own, and disturbs no other."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.installation import Installation, Outcome, audit, wait_until
from tests.processes import children, runs

GOOD = """
[handlers.good]
use = "tests.recorders:record"
"""


def bad(use: str, more: str = "") -> str:
    return GOOD + f'[handlers.bad]\nuse = "tests.misbehaving:{use}"\nretry = [1, 1]\n{more}\n'


@pytest.mark.parametrize(
    ("use", "said"),
    [
        ("block_once", "handler bad blocks: from now on it runs in a process of its own"),
        ("pause_a_little", "handler bad kept all others waiting for "),
    ],
)
def test_handler_that_blocks_gets_a_process_of_its_own(tmp_path: Path, use: str, said: str) -> None:
    with Installation.running(tmp_path, bad(use), processes=1) as offhook:
        outcome = offhook.load(200)
        offhook.wait_for_all(outcome, ["good", "bad"])
        audit(outcome, offhook.delivered("good"), repeats=True)
        audit(outcome, offhook.delivered("bad"), repeats=True)
        log = offhook.log.read_text()
        assert said in log
        if use == "block_once":
            assert "tests/misbehaving.py" in log  # the stack
        later = offhook.load(200, name="later")
        offhook.wait_for_all(_both(outcome, later), ["good", "bad"])
        audit(
            later, [each for each in offhook.delivered("bad") if "later" in each[1]], repeats=True
        )


def test_event_that_crashes_its_process_ends_as_a_dead_letter(tmp_path: Path) -> None:
    with Installation.running(tmp_path, bad("crash_always"), processes=1) as offhook:
        outcome = offhook.load(100)
        offhook.wait_for_all(outcome, ["good"])
        wait_until(lambda: len(_dead(offhook)) == 1, "the event is a dead letter", 60)
        audit(outcome, offhook.delivered("good"), repeats=True)
        wanted = {(c, n) for c, ns in outcome.accepted.items() for n in ns} - {("call-7", 3)}
        wait_until(
            lambda: {(c, n) for _, c, n in offhook.delivered("bad")} >= wanted,
            "bad has all other events",
        )
        assert "ended its process (SIGSEGV)" in offhook.log.read_text()


def test_handler_that_hoards_memory_is_moved(tmp_path: Path) -> None:
    with Installation.running(
        tmp_path, bad("keep_megabytes"), processes=1, max_memory=200_000_000
    ) as offhook:
        outcome = offhook.load(40, connections=4)
        offhook.wait_for_all(outcome, ["good", "bad"])
        audit(outcome, offhook.delivered("good"), repeats=True)
        audit(outcome, offhook.delivered("bad"), repeats=True)
        found = re.compile("handler bad (took most of|hoards memory)")
        wait_until(lambda: bool(found.search(offhook.log.read_text())), "it is found")


def test_handler_may_have_its_own_process_from_the_start(tmp_path: Path) -> None:
    with Installation.running(
        tmp_path, bad("block_once", 'process = "own"'), processes=1
    ) as offhook:
        wait_until(lambda: len(offhook.workers()) == 4, "all processes run")
        before = set(offhook.workers())
        outcome = offhook.load(200)
        offhook.wait_for_all(outcome, ["good", "bad"])
        audit(outcome, offhook.delivered("good"), repeats=False)  # it was never disturbed
        audit(outcome, offhook.delivered("bad"), repeats=True)
        assert set(offhook.workers()) == before


def test_blocked_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    with Installation.running(tmp_path, bad("block_once"), processes=1) as offhook:
        wait_until(lambda: len(offhook.serving()) == 1, "it serves")
        offhook.load(100)
        horses = offhook.work_horses()
        for pid in offhook.workers():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(runs, horses)), "the orphans have ended")


def test_processes_end_without_redis_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    with Installation.running(tmp_path, GOOD + "timeout = 1\n", processes=1) as offhook:
        offhook.wait_for_all(offhook.load(10), ["good"])
        family = [*offhook.serving(), *offhook.workers()]
        supervisors = [offhook.supervisor.pid, *children(offhook.supervisor.pid)]
        offhook.redis.terminate()
        for pid in supervisors:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(runs, family)), "all have ended", 60)  # its grace is 11 s
        offhook.redis.start()
        offhook.supervisor = offhook.start_supervisor()
        offhook.wait_for_all(offhook.load(10, name="later"), ["good"])


def _both(*outcomes: Outcome) -> Outcome:
    both = Outcome()
    for outcome in outcomes:
        both.accepted |= outcome.accepted
    return both


def _dead(offhook: Installation) -> list[str]:
    with offhook.client() as client:
        return list(client.zrange("rq:failed:offhook.bad.redeliver", 0, -1))
