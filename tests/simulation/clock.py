"""The virtual clock: what `time.time`, `time.monotonic` and `datetime.now` say in a simulation."""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, tzinfo
from typing import Any
from unittest.mock import patch

_START = 1_800_000_000.0  # seconds since 1970
_STEP = 1e-6  # seconds that looking at the clock takes, so that no loop lasts forever


class Clock:
    """Time that passes only when the event loop says so.

    Attributes:
        elapsed: seconds since the simulation began.
        offset: seconds by which the wall clock was set forward, or back if negative.
    """

    def __init__(self) -> None:
        self.elapsed = 1000.0
        self.offset = self._furthest = 0.0

    def set(self, seconds: float) -> None:
        """Set the wall clock forward, or back."""
        self.offset += seconds
        self._furthest = max(self._furthest, self.offset)

    def correct(self) -> None:
        """Undo that it was set back.

        While no server runs, none can notice it; what was due then comes as much later.
        """
        self.offset = self._furthest

    def monotonic(self) -> float:
        self.elapsed += _STEP
        return self.elapsed

    def time(self) -> float:
        self.elapsed += _STEP
        return _START + self.elapsed + self.offset

    def time_ns(self) -> int:
        return int(self.time() * 1e9)

    @contextmanager
    def installed(self, token: Callable[[int], str], pid: Callable[[], int]) -> Iterator[None]:
        """Let the whole process see this clock, these random tokens and process ids."""
        from offhook import event
        from workers.delivery.circuit import WAITS, Circuit
        from workers.serving import folding

        clock = self

        class Datetime(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return datetime.fromtimestamp(clock.time(), tz)

        with (
            patch.object(time, "time", self.time),
            patch.object(time, "monotonic", self.monotonic),
            patch.object(time, "time_ns", self.time_ns),
            patch.object(secrets, "token_hex", token),
            patch.object(os, "getpid", pid),
            patch.object(folding, "datetime", Datetime),
            patch.object(event, "_latest", 0),
            patch.object(Circuit.__init__, "__defaults__", (self.monotonic, WAITS)),
        ):
            yield
