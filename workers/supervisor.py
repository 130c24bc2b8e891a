"""The crew: the worker processes that a configuration needs, each on one queue, kept alive."""

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from redis.exceptions import RedisError
from rq import Worker
from rq.job import Job
from rq.serializers import JSONSerializer

from offhook import queues
from offhook.connection import connect, connect_rq
from offhook.errors import ConfigError, LeaseLost
from offhook.inbox import CALL_LOG, Inbox, release_lease
from offhook.logs import Outage
from offhook.plugins import faults, plug_handler, plug_lookup
from offhook.settings import Settings
from workers import dispatch, process, redeliver, scheduler

log = logging.getLogger("offhook.crew")

SCHEDULER = "scheduler"
_RESTARTS = (0.2, 1.0, 2.0, 5.0)  # seconds before a process that keeps dying is started again
_ALIVE_FOR = 5  # seconds without a sign of life, then a redelivery's worker is taken for dead
# RQ waits for an answer for about as long, which a server that has vanished never gives.
_WORKER_TTL = 20
_HEALTHY = 30.0  # seconds of life after which a death counts as the first again

# What a job needs is imported once, here: a work-horse forks with it already there.
JOBS = (dispatch.dispatch, redeliver.redeliver)


class OurWorker(Worker):
    """RQ's forking worker, which says why a job failed in our words: RQ's own log is off."""

    max_connection_wait_time = 2.0  # Redis is back within seconds, or it is somebody's alarm

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        super().handle_exception(job, *exc_info)
        error = exc_info[1]
        if isinstance(error, ConfigError):
            why = "; ".join(error.problems)
            log.error("%s failed, it is tried again: %s", job.description, why)
        elif isinstance(error, (LeaseLost, RedisError)):
            log.warning("%s failed, it is tried again: %s", job.description, error)
        else:
            self.say(job, error)

    def say(self, job: Job, error: BaseException) -> None:
        """Log what nobody thought of."""
        log.error("%s failed, it is tried again", job.description, exc_info=error)


class DispatchWorker(OurWorker):
    """One which on a warm shutdown asks its work-horse to end in good order."""

    def handle_work_horse_killed(self, job: Job, retpid: int, ret_val: int, rusage: object) -> None:
        """Let another dispatch go on at once, instead of when the dead one's lease runs out."""
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)  # type: ignore[no-untyped-call]
        handler, partition = job.args
        if retpid and release_lease(self.connection, handler, partition, retpid):
            queues.wake(self.connection, handler, partition)

    def handle_warm_shutdown_request(self) -> None:
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        if self.horse_pid:
            try:
                os.kill(self.horse_pid, signal.SIGTERM)
            except ProcessLookupError:
                log.debug("the work-horse has just ended")


class RedeliverWorker(OurWorker):
    """One whose death is noticed within seconds instead of a minute."""

    def say(self, job: Job, error: BaseException) -> None:
        """A delivery that failed: the job has said it."""

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        return _ALIVE_FOR

    def handle_work_horse_killed(self, job: Job, retpid: int, ret_val: int, rusage: object) -> None:
        """Have the next attempt soon: how long to wait was meant for one that had failed."""
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)  # type: ignore[no-untyped-call]
        job.retry_intervals = [queues.AFTER_DEATH]


class ScheduledWorker(OurWorker):
    """One for jobs that come again by themselves: one that is lost is no harm."""


def needed(settings: Settings, beyond: Sequence[int] = ()) -> list[str]:
    """The processes that the configuration needs: one per queue, and the scheduler.

    Args:
        beyond: partitions to serve besides those of the configuration.
    """
    names = [
        queues.dispatch_queue(handler, partition)
        for handler in settings.cursors
        for partition in (*range(settings.partitions), *beyond)
    ]
    return [
        *names,
        *map(queues.redeliver_queue, settings.handlers),
        queues.SCHEDULED,
        SCHEDULER,
    ]


def of_handlers(
    settings: Settings, handlers: Sequence[str], beyond: Sequence[int] = ()
) -> list[str]:
    """The processes of some handlers only, and those that no handler is without."""
    queue_names = {
        name
        for handler in (*handlers, CALL_LOG)
        for name in (
            queues.redeliver_queue(handler),
            *(queues.dispatch_queue(handler, p) for p in (*range(settings.partitions), *beyond)),
        )
    }
    always = {queues.SCHEDULED, SCHEDULER}
    return [name for name in needed(settings, beyond) if name in queue_names | always]


def left_over(settings: Settings) -> list[int]:
    """The partitions from before `partitions` was lowered in which events wait.

    None when the server does not answer: then the scheduler tells of them later.
    """
    with suppress(RedisError):
        return asyncio.run(_left_over(settings))
    return []


async def _left_over(settings: Settings) -> list[int]:
    async with connect(settings.redis_url) as redis:
        inbox = Inbox(redis, settings.partitions)
        beyond = await inbox.beyond()
        return [p for p in beyond if await inbox.unfinished(settings.cursors, p)]


def run_worker(queue_name: str, settings: Settings) -> None:
    """Work on one queue until SIGTERM. The main function of a worker process."""
    logging.getLogger("rq").setLevel(logging.CRITICAL)  # what it says of a failure, we say
    worker_class: type[OurWorker] = DispatchWorker
    if queue_name == queues.SCHEDULED:
        worker_class = ScheduledWorker
    elif queue_name.endswith(".redeliver"):
        worker_class = RedeliverWorker
    connection = connect_rq(settings.redis_url)
    outage = Outage(log, "Redis")
    while True:
        try:
            worker = worker_class(
                [queues.queue(queue_name, connection)],
                name=f"{queue_name}.{socket.gethostname()}.{os.getpid()}",
                connection=connection,
                serializer=JSONSerializer,
                job_monitoring_interval=1 if worker_class is RedeliverWorker else 5,
                maintenance_interval=30,
                worker_ttl=_WORKER_TTL,
            )
            break
        except RedisError as error:
            outage.goes_on(error)
            time.sleep(1)
    outage.is_over()
    try:
        worker.work(logging_level="CRITICAL")
    except RedisError as error:
        # RQ has given up, and cannot even say so in Redis. The next process waits for the server.
        outage.goes_on(error)
        sys.exit(1)


@dataclass
class _Member:
    name: str
    process: BaseProcess | None = None
    started: float = 0.0
    start_at: float = 0.0
    deaths: int = 0


class Crew:
    """Starts the processes, restarts one that dies, stops all of them in good order.

    Args:
        settings: the configuration.
        names: which of `needed(settings)` to run.
    """

    def __init__(self, settings: Settings, names: Sequence[str]) -> None:
        # Every fault of a plugin is told now, and its module is there.
        problems = faults(plug_handler, settings.handlers) + faults(plug_lookup, settings.lookups)
        if problems:
            raise ConfigError(problems)
        self._settings = settings
        self._members = [_Member(name) for name in names]
        self._stopping = False
        # Forked children share what is already imported; nothing of ours runs threads here.
        self._processes = multiprocessing.get_context("fork")
        # A delivery may take as long as its handler's timeout, and is then still acknowledged.
        self._grace = 10 + max((h.timeout for h in settings.handlers.values()), default=0)
        self._grace += sum(each.timeout for each in settings.lookups.values())  # before it begins

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, then stop warm; a second signal stops cold."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        # What is there now stays: no child of this one need look through it, nor copy it.
        gc.collect()
        gc.freeze()
        while not self._stopping:
            for member in self._members:
                self._look_after(member)
            time.sleep(0.1)
        self._stop()

    def _look_after(self, member: _Member) -> None:
        now = time.monotonic()
        if member.process is not None:
            if member.process.is_alive():
                return
            member.deaths = 1 if now - member.started > _HEALTHY else member.deaths + 1
            wait = _RESTARTS[min(member.deaths, len(_RESTARTS)) - 1]
            log.warning(
                "process %s ended (exit code %s); starting it again in %g s",
                member.name,
                member.process.exitcode,
                wait,
            )
            member.process.close()
            member.process = None
            member.start_at = now + wait
        if now >= member.start_at and not self._stopping:
            member.started = now
            member.process = self._start(member.name)

    def _start(self, name: str) -> BaseProcess:
        target: Callable[..., None] = scheduler.run if name == SCHEDULER else run_worker
        arguments: tuple[Any, ...] = (
            (self._settings,) if name == SCHEDULER else (name, self._settings)
        )
        child = self._processes.Process(target=_child, args=(target, *arguments), name=name)
        child.start()
        return child

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            log.warning("stopping cold: what is in flight will be delivered again")
            self._signal(signal.SIGKILL)
        self._stopping = True

    def _stop(self) -> None:
        log.info("stopping: what is in flight finishes first")
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + self._grace
        for member in self._members:
            if member.process is not None:
                member.process.join(max(0.0, deadline - time.monotonic()))
        self._signal(signal.SIGKILL)
        for member in self._members:
            if member.process is not None:
                member.process.join()

    def _signal(self, number: signal.Signals) -> None:
        for member in self._members:
            pid = member.process.pid if member.process is not None else None
            if pid is not None and member.process is not None and member.process.is_alive():
                os.kill(pid, number)


def _child(target: Callable[..., None], *arguments: Any) -> None:
    os.setpgrp()  # Ctrl-C in a terminal is the crew's to handle
    process.die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    target(*arguments)
