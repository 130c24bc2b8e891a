"""The watch over a forked process: a blocked one is killed, one without a CPU is not."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import fakeredis
import pytest

from tests.installation import wait_until
from workers import isolation, process
from workers.delivery.steps import StepPage
from workers.isolation import BLOCKED, ProcessWatch

CHILD = """
import signal, time
signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # asks for its stack
print(flush=True)
time.sleep(60)
"""

BLOCKING = """
import faulthandler, signal, sys, time
faulthandler.register(signal.SIGUSR1, int(sys.argv[1]))
exec(compile("def handle(): time.sleep(60)", "mine.py", "exec"))
print(flush=True)
exec(compile("handle()", "offhook/plugins/plugged.py", "exec"))
"""


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        yield running
        running.kill()


@pytest.fixture
def page() -> Iterator[StepPage]:
    page = StepPage()
    yield page
    assert page.stacks is not None
    page.stacks.close()


def test_process_that_blocks_is_killed(child: "subprocess.Popen[bytes]", page: StepPage) -> None:
    watch = ProcessWatch(page, fakeredis.FakeRedis(), 10**12)
    page.tick()
    watch.look(child.pid)
    assert child.poll() is None
    time.sleep(BLOCKED + 0.5)
    watch.look(child.pid)
    assert child.wait(10) == -signal.SIGKILL


def test_stack_is_logged_although_the_process_gets_a_cpu_late(
    page: StepPage, caplog: pytest.LogCaptureFixture
) -> None:
    watch = ProcessWatch(page, fakeredis.FakeRedis(), 10**12)
    assert page.stacks is not None
    stacks = page.stacks.fileno()
    command = [sys.executable, "-c", BLOCKING, str(stacks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[stacks]) as running:
        assert running.stdout is not None
        running.stdout.readline()
        page.tick()
        watch.look(running.pid)
        time.sleep(BLOCKED + 0.5)
        running.send_signal(signal.SIGSTOP)
        late = threading.Timer(0.4, running.send_signal, [signal.SIGCONT])
        late.start()
        watch.look(running.pid)
        late.join()
        running.kill()
    assert '  File "mine.py", line 1 in handle' in caplog.messages


def test_process_that_gets_no_cpu_is_not_killed(
    child: "subprocess.Popen[bytes]", page: StepPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = 7.0
    monkeypatch.setattr(isolation, "waited_for_cpu", lambda _: waited)
    watch = ProcessWatch(page, fakeredis.FakeRedis(), 10**12)
    began = time.monotonic()
    page.tick()
    watch.look(child.pid)
    time.sleep(BLOCKED + 0.1)
    waited += time.monotonic() - began
    watch.look(child.pid)
    time.sleep(0.3)
    assert child.poll() is None


def test_time_without_a_cpu_is_known() -> None:
    spin = "import time; end = time.monotonic() + 30\nwhile time.monotonic() < end: pass"
    # More of them than there are CPUs, all on one.
    cpu = str(min(os.sched_getaffinity(0)))
    pinned = ["taskset", "-c", cpu, sys.executable, "-c", spin]
    rivals = [subprocess.Popen(pinned) for _ in range(3)]
    wait_until(lambda: any(process.waited_for_cpu(each.pid) > 0.1 for each in rivals), "one waits")
    for each in rivals:
        each.kill()
        each.wait()
    assert process.waited_for_cpu(rivals[0].pid) == 0
