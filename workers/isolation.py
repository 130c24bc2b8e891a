"""Isolation: the RQ worker looks at the process that it forked, and ends it if a handler blocks."""

import logging
import os
import signal
import tempfile
import time
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from offhook.inbox.apart import count_death, move_apart
from workers.delivery.steps import StepPage
from workers.process import resident, waited_for_cpu

log = logging.getLogger("offhook.isolation")

# Seconds without a sign of life after which a process is killed. Those in which the machine gave it
# no CPU do not count.
BLOCKED = 1.0
_STACK_WAIT = 1.0  # seconds for the blocked process to write its stack, when it gets a CPU late
_STACK_LOOK = 0.1  # seconds between looks whether it still writes


class ProcessWatch:
    """What the RQ worker sees of the process that it forked.

    Args:
        page: which that process writes.
        redis: a blocking client.
        max_memory: bytes; a process that has half as much again is killed.
    """

    def __init__(self, page: StepPage, redis: Redis, max_memory: int) -> None:
        self._page = page
        self._redis = redis
        self._max_memory = max_memory
        self._looped = self._waited = 0.0  # at the last sign of life
        page.stacks = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - as long as the process

    def look(self, pid: int) -> None:
        """Kill the process if it is blocked or too large, and blame the handler that runs."""
        running = self._page.read()
        if not running.looped:
            return  # it has not begun to serve
        if resident(pid) > 1.5 * self._max_memory:
            self._blame(running.about, "hoards memory", "")
        elif self._silent_for(pid, running.looped) >= BLOCKED:
            stack = self._stack_of(pid)
            running = self._page.read()
            if self._silent_for(pid, running.looped) < BLOCKED:
                return  # it runs again
            about = running.about if running.since else running.plain
            if about:
                self._blame(about, "blocks", stack)
            else:
                log.error("a process that serves handlers does not respond: it is killed")
                _log_stack(stack)
        else:
            return
        self._page.clear()
        os.kill(pid, signal.SIGKILL)

    def _silent_for(self, pid: int, looped: float) -> float:
        """Seconds in which the process could have given a sign of life, and has not."""
        waited = waited_for_cpu(pid)
        if looped != self._looped:
            self._looped, self._waited = looped, waited
        return time.monotonic() - looped - (waited - self._waited)

    def died(self, status: int) -> None:
        """Blame the handler that ran when the process died.

        A process that was killed may have been killed from outside: only when that happens again in
        the flight of the same event, the handler is to blame.
        """
        running = self._page.read()
        self._page.clear()
        about = running.about if running.since else running.plain
        code = os.waitstatus_to_exitcode(status)
        if not about or code == -signal.SIGTERM:
            return
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if code != -signal.SIGKILL or self._deaths(about) > 1:
            self._blame(about, f"ended its process ({how})", "", counted=code == -signal.SIGKILL)

    def _deaths(self, about: tuple[str, ...]) -> int:
        """Count a death in the flight of an event; return how many there were."""
        try:
            return count_death(self._redis, *about[:2])
        except RedisError as error:
            log.error("cannot note in which event's flight a process died: %s", error)
            return 0

    def _blame(
        self, about: tuple[str, ...], reason: str, stack: str, *, counted: bool = False
    ) -> None:
        handler, event_id, call = (*about, "", "", "")[:3]
        extra: dict[str, Any] = {"handler": handler, "event": event_id, "call": call}
        log.error(
            "handler %s %s: from now on it runs in a process of its own",
            handler,
            reason,
            extra=extra,
        )
        _log_stack(stack)
        try:
            move_apart(self._redis, handler, reason)
            if not counted:
                count_death(self._redis, handler, event_id)
        except RedisError as error:
            log.error("cannot note that handler %s %s: %s", handler, reason, error)

    def _stack_of(self, pid: int) -> str:
        """The stack traces of the process's threads, which `faulthandler` writes on a signal."""
        stacks = self._page.stacks
        if stacks is None:
            return ""
        stacks.seek(0)
        stacks.truncate()
        os.kill(pid, signal.SIGUSR1)
        size, until = 0, time.monotonic() + _STACK_WAIT
        while time.monotonic() < until:
            time.sleep(_STACK_LOOK)
            before, size = size, os.fstat(stacks.fileno()).st_size
            if before == size > 0:
                break
        stacks.seek(0)
        return stacks.read(20_000).decode(errors="replace")


def _log_stack(stack: str) -> None:
    """Log the frames of plugins: those above the one that calls them, in any thread."""
    frames: list[str] = []
    for line in stack.splitlines():
        if line.startswith(("Thread", "Current thread")):
            frames = []
        elif "offhook/plugins/plugged.py" in line:
            for frame in frames:
                log.error("  %s", frame.strip())
            frames = []
        else:
            frames.append(line)
