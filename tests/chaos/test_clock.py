"""The wall clock jumps in all processes at once, also the server's, and delays nothing.

A few lines of C move the clock (`clock.c`), so a C compiler is needed.
`tests/workers/test_clock.py` tests each part with a clock that is set back, without a compiler.
"""

import shutil
import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import redis

from tests.chaos.audit import Delivery, Event, audit, deliveries
from tests.chaos.load import Callers
from tests.installation import Installation, wait_until

HOUR, DAY = 3600, 86_400
HANDLERS = """
[handlers.steady]
use = "tests.chaos.handlers:record"
[handlers.late]
use = "tests.chaos.handlers:fail_now_and_then"
retry = [2]
"""
NAMES = ("steady", "late")
SOON = 30.0  # seconds on a busy machine; less than an hour


class WallClock:
    """The time for all processes started from now on."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        library = folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        self._path = folder / "clock"
        self.move(0)
        monkeypatch.setenv("LD_PRELOAD", str(library))
        monkeypatch.setenv("WALL_CLOCK", str(self._path))

    def move(self, seconds: int) -> None:
        """Set how many seconds the clock is ahead."""
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.write(struct.pack("l", seconds))


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WallClock:
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler (cc), so no wall clock that can be moved")
    return WallClock(tmp_path, monkeypatch)


def test_clock_jump_delays_nothing(clock: WallClock, tmp_path: Path) -> None:
    folder = tmp_path / "installation"
    folder.mkdir()
    with Installation.running(folder, HANDLERS) as offhook:
        server = offhook.client()
        callers = Callers(offhook.port, calls=3, per_call=3, pause=0.2)
        callers.start()
        try:
            wait_until(lambda: len(_events(offhook, "late")) > 9, "redeliveries are made")
            now = 0
            for jump in (-HOUR, DAY):
                now += jump
                clock.move(now)
                wait_until(lambda: _ahead(server) == now, "the server's clock has jumped")  # noqa: B023
                began = time.monotonic()
                _all_go_on(offhook, callers.accepted)
                print(f"{jump:+} s: all went on within {time.monotonic() - began:.1f} s")
        finally:
            callers.stop()
        wanted = set(callers.accepted)
        assert len(wanted) == callers.sent, "a callback was refused"
        for name in NAMES:
            wait_until(lambda n=name: wanted <= _events(offhook, n), f"{name} has all", 60)  # type: ignore[misc]
            found = audit(callers.accepted, deliveries(offhook, name))
            assert found.faultless, (name, found)
        server.close()


def _all_go_on(offhook: Installation, accepted: Mapping[Event, float]) -> None:
    """Check events parked before the jump, and events sent after it."""
    before = set(accepted)
    wait_until(lambda: len(accepted) > len(before) + 5, "callbacks are answered", SOON)
    wanted = set(accepted)
    for name in NAMES:
        wait_until(lambda n=name: wanted <= _events(offhook, n), f"{name} has all", SOON)  # type: ignore[misc]


def _ahead(server: redis.Redis) -> int:
    seconds, _ = server.time()
    return round(seconds - time.time())


def _events(offhook: Installation, handler: str) -> set[Event]:
    found: list[Delivery] = deliveries(offhook, handler)
    return {(call, n) for _, call, n, _ in found}
