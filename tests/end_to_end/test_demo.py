"""The demo, as a new user runs it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.installation import OFFHOOK, wait_until

COMMAND = [OFFHOOK, "demo", "--seed", "5"]


def mine(folder: Path) -> dict[int, str]:
    """Return the running processes that use this folder for temporary files."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TMPDIR={folder}\0".encode() in path.read_bytes():
                command = path.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(path.parent.name)] = command
        except OSError:
            continue  # it has just ended
    return found


def test_demo_shows_deliveries_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        COMMAND,
        env=os.environ | {"TMPDIR": str(tmp_path), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout
    assert len(re.findall("● ", shown)) == 1 + 17  # and one in the legend
    assert "17 events accepted: 2 answer-in, 1 answer-out, 6 dial-in, 1 dial-out" in shown
    assert "15 events about whole calls: 3 call-answered, 5 call-ended, 5 call-started" in shown
    assert len(re.findall("◆ ", shown)) == 1 + 15
    assert re.search(r"alerts +2 +0 +0 ", shown)
    assert re.search(r"call-log +32 +0 +0 ", shown)
    assert re.search(r"crm +17 +1 +0 ", shown)
    assert "The database has 17 events, 5 calls and 7 legs." in shown
    calls = shown.partition("$ offhook calls")[2].partition("17 events accepted")[0]
    outcomes = [word for word in calls.split() if word in ("answered", "missed", "busy")]
    assert sorted(outcomes[1:]) == ["answered"] * 3 + ["busy", "missed"]  # after the heading
    assert "The CRM has 17 webhooks" in shown
    assert "2 alerts, one for each missed call" in shown
    assert "Traceback" not in shown + done.stderr
    assert list(tmp_path.iterdir()) == []
    wait_until(lambda: mine(tmp_path) == {}, f"no process is left: {mine(tmp_path)}")


@pytest.mark.parametrize("after", ["Starting the receiver", "Call 2 of 5", "Still running"])
def test_ctrl_c_stops_the_demo_at_any_time(tmp_path: Path, after: str) -> None:
    output = tmp_path.parent / f"{tmp_path.name}.log"
    with output.open("wb") as log:
        demo = subprocess.Popen(
            [*COMMAND, "--keep"],
            env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A shell may ignore SIGINT for tests in the background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    wait_until(lambda: after in output.read_text(), f"{after!r} is shown", seconds=90)
    time.sleep(0.2)
    os.killpg(demo.pid, signal.SIGINT)  # as a terminal does
    assert demo.wait(90) == 130
    sys.stdout.write(output.read_text())
    assert "Stopped; nothing is left behind." in output.read_text()
    assert "Traceback" not in output.read_text()
    assert list(tmp_path.iterdir()) == []
    wait_until(lambda: mine(tmp_path) == {}, f"no process is left: {mine(tmp_path)}")
