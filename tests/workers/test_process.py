"""Processes end with their parent."""

import subprocess
import sys

from tests.installation import ROOT

# The child asks to end with its parent when that has ended already.
TOO_LATE = """
import os, time
from workers import process

parent = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == parent:
    time.sleep(0.01)
process.die_with_parent()
print("lives on", flush=True)
"""


def test_a_process_whose_parent_ended_first_ends() -> None:
    command = [sys.executable, "-c", TOO_LATE]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("", "")
