"""The journal's disk is full while Redis is down: 503 and an error in the log, but never a 200."""

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from receiver.journal import bytes_in
from tests.installation import Installation, audit, wait_until

HANDLERS = """
[handlers.first]
use = "tests.recorders:record"
"""
SIZE = 256 * 1024  # bytes


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a file system of `SIZE` bytes. Return whether this user may."""
    folder.mkdir()
    options = f"size={SIZE}"
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True
    )
    if mounting.returncode:
        # Make it visible in the output and the warnings of the tests.
        print(f"no tmpfs: {mounting.stderr.strip()}; a limit on the size of files stands in for it")
    try:
        yield mounting.returncode == 0
    finally:
        if mounting.returncode == 0:
            subprocess.run(["umount", folder], check=True)


def test_full_disk_is_reported_and_costs_no_accepted_event(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk) as is_real:
        if not is_real:
            with capsys.disabled():
                print("\ntest_full_disk: no tmpfs can be mounted here, RLIMIT_FSIZE stands in")
        with Installation.running(tmp_path, HANDLERS, journal=str(disk / "journal")) as offhook:
            before = offhook.load(100, name="before")
            if not is_real:
                subprocess.run(
                    ["prlimit", f"--fsize={SIZE}", f"--pid={offhook.receiver.pid}"], check=True
                )
            offhook.redis.stop()
            outcome = offhook.load(2_000, name="while")
            # The last batch is none for which there is still room.
            offhook.load(100, connections=1, name="last", outcome=outcome)
            assert outcome.count > 0, "the disk was full from the start"
            assert outcome.refused > 500, "the disk never filled up"
            if is_real:
                [journal] = (disk / "journal").iterdir()
                assert SIZE * 0.8 < journal.stat().st_size <= SIZE
            problems = _not_ready(offhook)
            assert any("journal" in problem for problem in problems), problems
            log = offhook.log.read_text()
            reason = "No space left on device" if is_real else "File too large"
            assert f"a callback was not accepted: the journal cannot be written: {reason}" in log
            offhook.redis.start()
            wait_until(offhook.is_ready, "the receiver is ready again")
            after = offhook.load(100, name="after")
            assert (after.count, after.refused) == (100, 0)
            for each in (before, after):
                outcome.accepted |= each.accepted
            offhook.wait_for_all(outcome, ["first"])
            audit(outcome, offhook.delivered("first"), repeats=True)
            wait_until(lambda: bytes_in(disk / "journal") == 0, "the journal is empty")


def _not_ready(offhook: Installation) -> list[str]:
    """Return the problems in the health check."""
    with pytest.raises(urllib.error.HTTPError, match="503") as refusal:
        urllib.request.urlopen(f"http://127.0.0.1:{offhook.port}/health/ready", timeout=5)
    with refusal.value as answer:
        problems: list[str] = json.load(answer)["problems"]
        return problems
