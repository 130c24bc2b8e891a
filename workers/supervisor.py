"""The supervisor: starts the worker processes that a configuration needs and restarts dead ones."""

import gc
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from redis.exceptions import RedisError
from setproctitle import setproctitle

from offhook import queues
from offhook.connection import connect_rq
from offhook.errors import ConfigError
from offhook.inbox import keys
from offhook.inbox.apart import read_apart
from offhook.operations.running_files import Loaded, loaded_now
from offhook.plugins import plug_all
from offhook.settings import Settings
from workers import process, scheduler, version
from workers.delivery.steps import StepPage
from workers.rq_workers import run_worker

log = logging.getLogger("offhook.supervisor")

SCHEDULER = "scheduler"
_RESTARTS = (0.2, 1.0, 2.0, 5.0)  # seconds before the 1st, 2nd, ... restart in a row
_HEALTHY = 30.0  # seconds of life after which a death counts as the first again
_LOOK_EVERY = 0.5  # seconds between looks for handlers that must run apart
_SOON = 10.0  # seconds in which the processes serve, or will not soon: Redis may be away


@dataclass(frozen=True)
class Needed:
    """A process to run.

    Attributes:
        name: unique on this machine.
        queue: what it works on; empty for the scheduler.
        pool: the pool of handlers that it serves, if it does.
        servers: number of processes that serve the pool.
    """

    name: str
    queue: str = ""
    pool: str | None = None
    servers: int = 1


def required_processes(settings: Settings) -> list[Needed]:
    """The processes that serve the handlers, the one for periodic jobs, and the scheduler."""
    shared = queues.serve_queue("")
    count = settings.processes or os.cpu_count() or 1
    names = [shared] if count == 1 else [f"{shared}.{number}" for number in range(count)]
    pools = settings.pools - {""}
    return [
        *(Needed(name, shared, "", count) for name in names),
        *(required_pool(pool) for pool in sorted(pools)),
        Needed(queues.SCHEDULED, queues.SCHEDULED),
        Needed(SCHEDULER),
    ]


def required_pool(pool: str) -> Needed:
    """The process that serves a pool of handlers."""
    queue = queues.serve_queue(pool)
    return Needed(queue, queue, pool)


@dataclass
class _Child:
    needed: Needed
    page: StepPage | None = None
    process: BaseProcess | None = None
    started: float = 0.0
    start_at: float = 0.0
    deaths: int = 0


class Supervisor:
    """Starts the processes, restarts those that die, and stops all of them gracefully.

    Args:
        settings: the configuration.

    Attributes:
        loaded: what it runs.

    Raises:
        ConfigError: a plugin is misconfigured.
    """

    def __init__(self, settings: Settings) -> None:
        # Imports the plugins, once for all children.
        plugins = plug_all(settings.all_handlers, settings.all_lookups)
        if plugins.problems:
            raise ConfigError(plugins.problems)
        for sentence in plugins.broken.values():
            log.error("%s; the others run, and its events wait", sentence)
        for sentence in plugins.warnings:
            log.warning(sentence)
        self.loaded: Loaded = loaded_now(settings, plugins.broken.values())
        self._version = version.Version(settings, plugins.broken)
        self._settings = settings
        self._children = {each.name: _Child(each) for each in required_processes(settings)}
        self._apart: set[str] = set()
        self._look_at = 0.0
        self._redis = connect_rq(settings.redis_url)
        self._stopping = False
        # Forked children share the modules imported here. Safe: this process has no threads.
        self._processes = multiprocessing.get_context("fork")
        self._grace = process.grace(settings)

    def run(self, serves: Callable[[], object]) -> None:
        """Run until SIGTERM, then stop gracefully; a second signal kills.

        Args:
            serves: called once the processes serve, or could not do so soon.
        """
        signal.signal(signal.SIGTERM, self._on_signal)
        version.RUNNING = self._version
        latest, called = time.monotonic() + _SOON, False
        # Children then neither scan these objects nor copy their pages.
        gc.collect()
        gc.freeze()
        while not self._stopping:
            self._look_for_pools()
            for child in list(self._children.values()):
                self._keep_running(child)
            if not called and (self._serves() or time.monotonic() > latest):
                called = True
                serves()
            time.sleep(0.1)
        self._stop()

    def _serves(self) -> bool:
        serving = [each for each in self._children.values() if each.needed.pool is not None]
        return all(each.page is not None and each.page.read().looped for each in serving)

    def _look_for_pools(self) -> None:
        """Run a process for each handler that was moved out of the shared ones."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_EVERY
        with suppress(RedisError):  # the servers report it
            found: Any = self._redis.hgetall(keys.APART)
            self._apart = set(read_apart(found)) & self._settings.all_handlers.keys()
        for handler in self._apart:
            needed = required_pool(handler)
            if needed.name not in self._children:
                self._children[needed.name] = _Child(needed)

    def _keep_running(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is not None:
            if child.process.is_alive():
                return
            self._bury(child)
        if child.needed.name not in self._children:
            return
        if now >= child.start_at and not self._stopping:
            child.started = now
            child.process = self._start(child)

    def _bury(self, child: _Child) -> None:
        """Free what a dead process held, and decide when it starts again."""
        assert child.process is not None  # noqa: S101
        pool, status = child.needed.pool, child.process.exitcode
        now = time.monotonic()
        if pool and pool not in self._settings.pools | self._apart:
            log.info(
                "process %s ended: its handler is served with the others again", child.needed.name
            )
            child.process.close()
            del self._children[child.needed.name]
            return
        child.deaths = 1 if now - child.started > _HEALTHY else child.deaths + 1
        wait = _RESTARTS[min(child.deaths, len(_RESTARTS)) - 1]
        log.warning(
            "process %s ended (exit code %s); restarting it in %g s",
            child.needed.name,
            status,
            wait,
        )
        child.process.close()
        child.process = None
        child.start_at = now + wait

    def _start(self, child: _Child) -> BaseProcess:
        needed = child.needed
        target: Callable[..., None] = scheduler.run
        arguments: tuple[Any, ...] = (self._settings,)
        if needed.queue:
            target = run_worker
            child.page = None if needed.pool is None else StepPage()
            arguments = (needed.queue, self._settings, needed.pool, needed.servers, child.page)
        started = self._processes.Process(
            target=_run, args=(needed.name, target, *arguments), name=needed.name
        )
        # It would run our handler of a signal that came before it has its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            started.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
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
        for child in self._children.values():
            if child.process is not None:
                child.process.join(timeout())

    def _signal(self, number: signal.Signals) -> None:
        for child in self._children.values():
            if child.process is not None and child.process.is_alive() and child.process.pid:
                os.kill(child.process.pid, number)


def _run(name: str, target: Callable[..., None], *arguments: Any) -> None:
    setproctitle(f"offhook work: {name}")
    os.setpgrp()  # the keeper handles Ctrl-C
    process.die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    target(*arguments)
