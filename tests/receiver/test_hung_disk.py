"""The journal's disk hangs while Redis is down: no event is accepted that is not on disk."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.installation import wait_until
from tests.receiver.running import Answer, RunningReceiver, running_receiver, url

# Python imports this at startup if it is on the path.
HANGING = """
import os, pathlib, time
hangs = pathlib.Path(__file__).with_name("hangs")
fdatasync = os.fdatasync
def fdatasync_that_hangs(file):
    while hangs.exists():
        time.sleep(0.01)
    fdatasync(file)
os.fdatasync = fdatasync_that_hangs
"""
NO_REDIS = "redis://127.0.0.1:1/0"


def test_callbacks_wait_for_a_hung_disk_and_the_operator_is_warned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    hangs = tmp_path / "hangs"
    with running_receiver(NO_REDIS, tmp_path, patience=0.5) as receiver:
        assert _call(receiver, 0).status == 200
        assert receiver.get("/health/ready").status == 200
        problem = "the journal's disk has not responded for 0.5 s"
        before = receiver.log.read_text().count(problem)  # by itself, on a busy machine
        hangs.touch()
        began = time.monotonic()
        answers: dict[int, Answer] = {}
        callers = [
            threading.Thread(target=lambda n=n: answers.update({n: _call(receiver, n)}))
            for n in (1, 2, 3)
        ]
        for caller in callers:
            caller.start()
        wait_until(lambda: receiver.get("/health/ready").status == 503, "it is not ready")
        assert time.monotonic() - began > 0.4
        assert problem in receiver.get("/health/ready").json["problems"]
        assert receiver.get("/health/live").status == 200
        time.sleep(2)  # it looks whether the disk works
        assert receiver.log.read_text().count(problem) == before + 1
        assert not answers, "a response before the event was on disk"
        hangs.unlink()
        for caller in callers:
            caller.join(30)
        assert {n: answer.status for n, answer in answers.items()} == {1: 200, 2: 200, 3: 200}
        assert receiver.get("/health/ready").status == 200
        assert "the journal's disk responds again" in receiver.log.read_text()


def _call(receiver: RunningReceiver, n: int) -> Answer:
    return receiver.post(url(), f"CallID=call&CallFlow=IN&n={n}".encode())
