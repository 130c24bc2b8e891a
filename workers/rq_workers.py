"""RQ's worker, adapted to the jobs of Offhook; `run_worker()` is a worker process."""

import logging
import os
import signal
import socket
import sys
import time
from typing import Any

from redis.exceptions import RedisError
from rq import Worker
from rq.job import Job
from rq.serializers import JSONSerializer

from offhook import queues
from offhook.connection import connect_rq
from offhook.errors import ConfigError, LeaseLost
from offhook.inbox import release_lease
from offhook.logs import Outage
from offhook.settings import Settings

# RQ forks a work-horse for each job: it inherits these modules instead of importing them anew.
from workers import dispatch, redeliver  # noqa: F401

log = logging.getLogger("offhook.worker")

_REDELIVERY_HEARTBEAT = 5  # seconds without a heartbeat before a redelivery's worker counts as dead
# RQ derives its read timeout from this: how long a worker waits for a server that has vanished.
_WORKER_TTL = 20


class OffhookWorker(Worker):
    """RQ's forking worker with our own log lines for failed jobs; RQ's log is off."""

    max_connection_wait_time = 2.0  # seconds

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        super().handle_exception(job, *exc_info)
        error = exc_info[1]
        if isinstance(error, ConfigError):
            log.error("%s failed, will retry: %s", job.description, "; ".join(error.problems))
        elif isinstance(error, (LeaseLost, RedisError)):
            log.warning("%s failed, will retry: %s", job.description, error)
        else:
            self.log_unexpected(job, error)

    def log_unexpected(self, job: Job, error: BaseException) -> None:
        """Log an error that no job is known to raise."""
        log.error("%s failed, will retry", job.description, exc_info=error)


class DispatchWorker(OffhookWorker):
    """Stops its work-horse gracefully, and releases the lease of one that was killed."""

    def handle_work_horse_killed(self, job: Job, retpid: int, ret_val: int, rusage: object) -> None:
        """Wake another dispatch at once instead of when the dead one's lease expires."""
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
                log.debug("the work-horse has already ended")


class RedeliverWorker(OffhookWorker):
    """Has a short heartbeat, so that its death is noticed within seconds instead of a minute."""

    def log_unexpected(self, job: Job, error: BaseException) -> None:
        """Do nothing: the job logs its failed deliveries itself."""

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        return _REDELIVERY_HEARTBEAT

    def handle_work_horse_killed(self, job: Job, retpid: int, ret_val: int, rusage: object) -> None:
        """Retry soon: the job's own interval is the backoff after a failed attempt."""
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)  # type: ignore[no-untyped-call]
        job.retry_intervals = [queues.AFTER_DEATH]


def run_worker(queue_name: str, settings: Settings) -> None:
    """Work on one queue until SIGTERM. The main function of a worker process."""
    logging.getLogger("rq").setLevel(logging.CRITICAL)
    worker_class: type[OffhookWorker] = DispatchWorker
    if queue_name == queues.SCHEDULED:
        worker_class = OffhookWorker
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
        # RQ has given up and cannot record it in Redis. The next process waits for the server.
        outage.goes_on(error)
        sys.exit(1)
