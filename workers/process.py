"""Our processes: they end with their parent, and how much memory they take."""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Literal

from offhook.settings import Settings
from workers.delivery.steps import StepPage

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOOK_EVERY = 1.0  # seconds
_STUCK = 5.0  # seconds without a sign of life


class _Forked:
    """Which process forked this one.

    Attributes:
        by: its id; None: no Python process did.
    """

    by: int | None = None
    _forking = 0

    @classmethod
    def before(cls) -> None:
        """Note, in the parent, what the child inherits."""
        cls._forking = os.getpid()

    @classmethod
    def in_child(cls) -> None:
        cls.by = cls._forking


os.register_at_fork(before=_Forked.before, after_in_child=_Forked.in_child)


def die_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent ends for any reason.

    Linux only. Elsewhere, a worker whose supervisor was killed ends with its next job.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if _Forked.by not in (None, os.getppid()):
        os._exit(1)  # it ended before: no signal will come


def grace(settings: Settings) -> float:
    """Seconds in which a process must stop.

    Long enough for a delivery that began just now to time out and be acknowledged.
    """
    lookups = max(
        sum(each.timeout for each in settings.of(tenant).lookups.values())
        for tenant in ("", *settings.tenants)
    )
    return 10 + max((each.timeout for each in settings.all_handlers.values()), default=0) + lookups


def end_if_orphaned(page: StepPage) -> None:
    """End this process when its parent has gone and its event loop is stuck.

    A stuck loop does not notice the SIGTERM, and no parent is left to kill it.
    """
    parent = os.getppid()

    def look() -> None:
        while True:
            time.sleep(_LOOK_EVERY)
            if os.getppid() != parent and time.monotonic() - page.read().looped > _STUCK:
                os._exit(1)

    threading.Thread(target=look, name="orphan", daemon=True).start()


def resident(pid: int | Literal["self"] = "self") -> int:
    """The memory of a process in bytes; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * 4096
    except OSError:
        return 0


def waited_for_cpu(pid: int) -> float:
    """Seconds that the main thread of a process has been ready and waited for a CPU.

    0 where the system does not tell: Linux does, in /proc/PID/schedstat (sched-stats.rst).
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0
