"""The supervisor: starts the worker processes that a configuration needs and restarts dead ones."""

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from redis.exceptions import RedisError

from offhook import queues
from offhook.connection import opened
from offhook.errors import ConfigError
from offhook.inbox import CALL_LOG
from offhook.plugins import faults, plug_handler, plug_lookup
from offhook.settings import Settings
from workers import process, scheduler
from workers.rq_workers import run_worker

log = logging.getLogger("offhook.supervisor")

SCHEDULER = "scheduler"
_RESTARTS = (0.2, 1.0, 2.0, 5.0)  # seconds before the 1st, 2nd, ... restart in a row
_HEALTHY = 30.0  # seconds of life after which a death counts as the first again


def required_processes(
    settings: Settings, extra_partitions: Sequence[int] = (), handlers: Sequence[str] = ()
) -> list[str]:
    """Return the names of the processes to run: one for each queue, and the scheduler.

    Args:
        extra_partitions: partitions to serve besides the configured ones.
        handlers: serve only these; all when empty.
    """
    served = {*(handlers or settings.handlers), CALL_LOG}
    partitions = (*range(settings.partitions), *extra_partitions)
    return [
        *(
            queues.dispatch_queue(name, p)
            for name in settings.cursors
            for p in partitions
            if name in served
        ),
        *(queues.redeliver_queue(name) for name in settings.handlers if name in served),
        queues.SCHEDULED,
        SCHEDULER,
    ]


def leftover_partitions(settings: Settings) -> list[int]:
    """Return the partitions from before `partitions` was lowered that still hold events.

    Empty when Redis does not answer; the scheduler reports them later.
    """
    with suppress(RedisError):
        return asyncio.run(_leftover_partitions(settings))
    return []


async def _leftover_partitions(settings: Settings) -> list[int]:
    async with opened(settings) as (inbox, _):
        beyond = await inbox.beyond()
        return [p for p in beyond if await inbox.unfinished(settings.cursors, p)]


@dataclass
class _Child:
    name: str
    process: BaseProcess | None = None
    started: float = 0.0
    start_at: float = 0.0
    deaths: int = 0


class Supervisor:
    """Starts the processes, restarts those that die, and stops all of them gracefully.

    Args:
        settings: the configuration.
        names: which of `required_processes(settings)` to run.

    Raises:
        ConfigError: a plugin is misconfigured.
    """

    def __init__(self, settings: Settings, names: Sequence[str]) -> None:
        # Also imports the plugins, once for all children.
        problems = faults(plug_handler, settings.handlers) + faults(plug_lookup, settings.lookups)
        if problems:
            raise ConfigError(problems)
        self._settings = settings
        self._children = [_Child(name) for name in names]
        self._stopping = False
        # Forked children share the modules imported here. Safe: this process has no threads.
        self._processes = multiprocessing.get_context("fork")
        # Long enough for a delivery that began just now to time out and be acknowledged.
        self._grace = 10 + max((h.timeout for h in settings.handlers.values()), default=0)
        self._grace += sum(each.timeout for each in settings.lookups.values())

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, then stop gracefully; a second signal kills."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        # Children then neither scan these objects nor copy their pages.
        gc.collect()
        gc.freeze()
        while not self._stopping:
            for child in self._children:
                self._keep_running(child)
            time.sleep(0.1)
        self._stop()

    def _keep_running(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is not None:
            if child.process.is_alive():
                return
            child.deaths = 1 if now - child.started > _HEALTHY else child.deaths + 1
            wait = _RESTARTS[min(child.deaths, len(_RESTARTS)) - 1]
            log.warning(
                "process %s ended (exit code %s); restarting it in %g s",
                child.name,
                child.process.exitcode,
                wait,
            )
            child.process.close()
            child.process = None
            child.start_at = now + wait
        if now >= child.start_at and not self._stopping:
            child.started = now
            child.process = self._start(child.name)

    def _start(self, name: str) -> BaseProcess:
        target: Callable[..., None] = scheduler.run if name == SCHEDULER else run_worker
        arguments: tuple[Any, ...] = (
            (self._settings,) if name == SCHEDULER else (name, self._settings)
        )
        started = self._processes.Process(target=_run, args=(target, *arguments), name=name)
        started.start()
        return started

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            log.warning("killing the workers: deliveries in flight will be repeated")
            self._signal(signal.SIGKILL)
        self._stopping = True

    def _stop(self) -> None:
        log.info("stopping: waiting for deliveries in flight")
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + self._grace
        self._join(lambda: max(0.0, deadline - time.monotonic()))
        self._signal(signal.SIGKILL)
        self._join(lambda: None)

    def _join(self, timeout: Callable[[], float | None]) -> None:
        for child in self._children:
            if child.process is not None:
                child.process.join(timeout())

    def _signal(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.process is not None and child.process.is_alive() and child.process.pid:
                os.kill(child.process.pid, number)


def _run(target: Callable[..., None], *arguments: Any) -> None:
    os.setpgrp()  # the supervisor handles Ctrl-C
    process.die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    target(*arguments)
