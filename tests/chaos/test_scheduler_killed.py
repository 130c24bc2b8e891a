"""The scheduler is killed while redeliveries are due: they are made, and another one starts."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.chaos.audit import audit, deliveries
from tests.chaos.load import Callers
from tests.installation import Installation, wait_until

HANDLERS = """
[handlers.late]
use = "tests.chaos.handlers:fail_now_and_then"
retry = [1]
"""


def test_redeliveries_continue_when_the_scheduler_is_killed(tmp_path: Path) -> None:
    with Installation.running(tmp_path, HANDLERS) as offhook:
        callers = Callers(offhook.port, calls=3, per_call=3, pause=0.1)
        callers.start()
        try:
            wait_until(lambda: bool(_redelivered(offhook, callers, 0)), "redeliveries are made")
            killed = offhook.scheduler()
            os.kill(killed, signal.SIGKILL)
            moment = time.time()
            wait_until(
                lambda: bool(_redelivered(offhook, callers, moment)),
                "what failed since then is redelivered",
            )
            took = _redelivered(offhook, callers, moment)[0] - moment
            wait_until(lambda: _another_than(killed, offhook), "another scheduler runs")
        finally:
            callers.stop()
        wanted = set(callers.accepted)
        assert len(wanted) == callers.sent, "a callback was refused"
        wait_until(
            lambda: wanted <= {(call, n) for _, call, n, _ in deliveries(offhook, "late")},
            "everything is delivered",
        )
        found = audit(callers.accepted, deliveries(offhook, "late"))
        assert found.faultless, found
        print(f"scheduler killed: what failed then was redelivered after {took:.1f} s")
        assert took < 25


def _another_than(killed: int, offhook: Installation) -> bool:
    with suppress(ProcessLookupError):
        return offhook.scheduler() != killed
    return False


def _redelivered(offhook: Installation, callers: Callers, since: float) -> list[float]:
    """Return when the calls since then were redelivered."""
    return [
        when
        for _, call, n, when in deliveries(offhook, "late")
        if n == 0 and call.endswith(("0", "5")) and callers.accepted.get((call, 0), 0) > since
    ]
