"""RQ's worker, adapted to the jobs of Offhook; `run_worker()` is a worker process."""

import itertools
import logging
import os
import select
import signal
import socket
import time
from contextlib import suppress
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Worker
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer

from offhook import queues
from offhook.connection import connect_rq
from offhook.errors import ConfigError, LeaseLost
from offhook.inbox import keys, release_leases
from offhook.logs import Outage
from offhook.settings import Settings

# RQ forks a work-horse for each job: it inherits these modules instead of importing them anew.
from workers import scheduler, serve
from workers.delivery.steps import StepPage
from workers.isolation import ProcessWatch

log = logging.getLogger("offhook.worker")

# RQ derives its read timeout from this: how long a worker waits for a server that has vanished.
_WORKER_TTL = 20
_COUNT = itertools.count(1)
_HEARTBEAT_AGAIN = 15.0  # seconds until the next heartbeat after one that failed
_LOOK_EVERY = 0.25  # seconds between looks at the work-horse
OURS = frozenset({"workers.serve.serve", *(name for name, *_ in scheduler.JOBS)})


class OffhookWorker(Worker):
    """RQ's forking worker with our own log lines for failed jobs; RQ's log is off."""

    max_connection_wait_time = 2.0  # seconds

    def procline(self, message: str) -> None:
        """Keep the title that says which process of Offhook this is."""

    asked_to_stop = False

    def request_stop(self, signum: Any, frame: Any) -> None:
        """Note it first: RQ forgets it if Redis, which it tells, is away."""
        self.asked_to_stop = True
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def set_shutdown_requested_date(self) -> None:
        """Note in Redis that the worker was asked to stop; it stops also if Redis is away."""
        with suppress(RedisError):
            super().set_shutdown_requested_date()  # type: ignore[no-untyped-call]

    def perform_job(self, job: Job, queue: Any, execution: Any) -> bool:
        """Run the job, if it is one of ours: RQ would import and call any function."""
        if job.func_name not in OURS:
            log.error("a job that is not Offhook's is refused: %s", str(job.func_name)[:200])
            job._func_name = "workers.rq_workers.refused"
            job._args, job._kwargs = (), {}
        return bool(super().perform_job(job, queue, execution))

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        super().handle_exception(job, *exc_info)
        error = exc_info[1]
        if isinstance(error, ConfigError):
            log.error("%s failed, will retry: %s", job.description, "; ".join(error.problems))
        elif isinstance(error, (LeaseLost, RedisError)):
            log.warning("%s failed, will retry: %s", job.description, error)
        else:
            log.error("%s failed, will retry", job.description, exc_info=error)


class ServeWorker(OffhookWorker):
    """Stops its work-horse gracefully, kills one that is blocked, releases a dead one's leases.

    Its work-horse serves on while RQ's server is away.

    Attributes:
        inbox: the server of the inbox, with the leases.
    """

    watch: ProcessWatch
    inbox: Redis
    pool: str
    _outage = Outage(log, "RQ's server")
    _next_heartbeat = 0.0
    _dead: tuple[int, int] | None = None  # process id and status of a work-horse not buried yet

    def fork_work_horse(self, job: Job, queue: Any) -> None:
        """Fork, and lose no signal meanwhile: a work-horse that does not get it serves on."""
        # The work-horse would run our handler of a signal that came before it has its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            super().fork_work_horse(job, queue)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if self.asked_to_stop:  # before there was one
            self._stop_horse()

    def setup_work_horse_signals(self) -> None:
        super().setup_work_horse_signals()  # type: ignore[no-untyped-call]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def wait_for_horse(self) -> tuple[Any, Any, Any]:
        """Wait until the work-horse ends, and look at it meanwhile."""
        try:
            handle = os.pidfd_open(self.horse_pid)
        except ProcessLookupError:
            return super().wait_for_horse()
        try:
            while not select.select([handle], [], [], _LOOK_EVERY)[0]:
                self.watch.look(self.horse_pid)
        finally:
            os.close(handle)
        ended = super().wait_for_horse()
        if ended[0] and ended[1]:
            self._dead = ended[0], ended[1]
        return ended

    def maintain_heartbeats(self, job: Job, execution: Any) -> None:
        """Tell RQ that the job runs; if RQ's server is away, the job runs on."""
        if time.monotonic() < self._next_heartbeat:
            return
        try:
            super().maintain_heartbeats(job, execution)
            self._outage.is_over()
        except RedisError as error:
            self._outage.goes_on(error)
            # Not soon: nothing looks at the work-horse while this waits for a response.
            self._next_heartbeat = time.monotonic() + _HEARTBEAT_AGAIN

    def monitor_work_horse(self, job: Job, queue: Any, execution: Any) -> None:
        try:
            super().monitor_work_horse(job, queue, execution)
        finally:  # RQ's server may be away
            self._bury()

    def handle_work_horse_killed(self, job: Job, retpid: int, ret_val: int, rusage: object) -> None:
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)  # type: ignore[no-untyped-call]
        self._bury()

    def _bury(self) -> None:
        """Free a dead work-horse's leases at once, instead of when they expire."""
        if self._dead is not None:
            (pid, status), self._dead = self._dead, None
            self.watch.died(status)
            release_leases(self.inbox, self.pool, pid)

    def handle_warm_shutdown_request(self) -> None:
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        if self.horse_pid:
            self._stop_horse()

    def _stop_horse(self) -> None:
        try:
            os.kill(self.horse_pid, signal.SIGTERM)
        except ProcessLookupError:
            log.debug("the work-horse has already ended")


def refused() -> None:
    """Stand in for a job that is not ours."""
    raise RuntimeError("not a job of Offhook")


def run_worker(
    queue_name: str, settings: Settings, pool: str | None, servers: int, page: StepPage | None
) -> None:
    """Work on one queue until SIGTERM. The main function of a worker process.

    Args:
        pool: the pool of handlers that the queue's job serves; None for other jobs.
        servers: number of processes that serve the pool on this machine.
        page: what the process that serves shows of itself; None for other jobs.
    """
    logging.getLogger("rq").setLevel(logging.CRITICAL)
    # A worker that waits long for RQ's server does not look at its work-horse meanwhile.
    connection = connect_rq(settings.jobs_url, tries=None if pool is None else 1)
    inbox = connect_rq(settings.redis_url)
    outage = Outage(log, "RQ's server")
    serve.PAGE = page or StepPage()  # the work-horse inherits it
    watch = ProcessWatch(serve.PAGE, inbox, settings.max_memory)
    worker: OffhookWorker | None = None
    briefly = False
    with suppress(StopRequested):  # SIGTERM while RQ registers or deregisters the worker
        while worker is None or not worker.asked_to_stop:
            try:
                if pool and not _is_needed(settings, pool, inbox):
                    return
                worker_class = OffhookWorker if pool is None else ServeWorker
                worker = worker_class(
                    [queues.queue(queue_name, connection)],
                    # RQ may still know one that ended while Redis was away.
                    name=f"{queue_name}.{socket.gethostname()}.{os.getpid()}.{next(_COUNT)}",
                    connection=connection,
                    serializer=JSONSerializer,
                    job_monitoring_interval=5,
                    maintenance_interval=30,
                    worker_ttl=_WORKER_TTL,
                )
                if isinstance(worker, ServeWorker):
                    worker.watch, worker.inbox, worker.pool = watch, inbox, pool or ""
                    queues.call_serve(connection, pool or "", servers)
                outage.is_over()
                began = time.monotonic()
                worker.work(logging_level="CRITICAL", burst=pool is not None)
                if pool is None:
                    return
                before, briefly = briefly, time.monotonic() - began < 1
                if before and briefly:
                    time.sleep(1)  # it cannot serve
            except RedisError as error:
                # Once it works, RQ gives up by itself, and cannot record that in Redis.
                outage.goes_on(error)
                time.sleep(1)


def _is_needed(settings: Settings, pool: str, inbox: Redis) -> bool:
    """Return whether a pool is configured, or serves a handler that runs apart."""
    return pool in settings.pools or bool(inbox.hexists(keys.APART, pool))
