"""The supervisor of `offhook work`: the processes that it starts, in real processes."""

import os
import signal
import time

import pytest

from offhook.settings import load_settings
from tests.conftest import Configure
from workers import scheduler, supervisor
from workers.supervisor import SCHEDULER, Needed, Supervisor, _Child


def test_a_signal_that_comes_as_a_process_begins_ends_it(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "setproctitle", lambda _: time.sleep(0.5))
    monkeypatch.setattr(scheduler, "run", lambda _: time.sleep(60))
    configure()
    ours = signal.signal(signal.SIGTERM, lambda *_: None)  # as `Supervisor.run` sets one
    try:
        process = Supervisor(load_settings())._start(_Child(Needed(SCHEDULER)))
        assert process.pid
        os.kill(process.pid, signal.SIGTERM)
        process.join(20)
        assert process.exitcode == -signal.SIGTERM
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])  # here, signals come as before
    finally:
        signal.signal(signal.SIGTERM, ours)
