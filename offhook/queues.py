"""RQ as Offhook uses it: the names of queues and jobs, and enqueueing jobs by name, as JSON.

Every worker process listens to exactly one queue: RQ takes a job off a single queue atomically, so
a worker killed at that moment loses no job.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from redis import Redis
from rq import Queue, Retry
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer

from offhook.event import CallEvent
from offhook.inbox import CALL_LOG, keys

SCHEDULED = "offhook.scheduled"  # the queue of periodic jobs
AFTER_DEATH = 5  # seconds until a redelivery whose process was killed is retried

# The redelivery job decides when it is dead. Until then RQ retries it, whatever kills its process.
_UNTIL_DEAD = Retry(max=100_000, interval=AFTER_DEATH)
_LONGEST_SILENCE = 120  # seconds; RQ's heartbeats expire within that time
_FOREVER = -1


def dispatch_queue(handler: str, partition: int) -> str:
    """The queue of the worker that serves the handler's cursor on one partition."""
    return f"offhook.{handler}.{partition}"


def redeliver_queue(handler: str) -> str:
    """The queue of the handler's redeliveries; its failed registry holds the dead letters."""
    return f"offhook.{handler}.redeliver"


def with_redeliveries(redis: Redis) -> list[str]:
    """Handlers that have ever had a redelivery or a dead letter, configured or not."""
    pattern = re.compile(re.escape(redeliver_queue("NAME")).replace("NAME", "(.+)"))
    found = (pattern.fullmatch(each.name) for each in Queue.all(connection=redis))
    return sorted(match[1] for match in found if match)


def queue(name: str, redis: Redis) -> Queue:
    """An RQ queue with JSON jobs."""
    return Queue(name, connection=redis, serializer=JSONSerializer)


def wake(redis: Redis, handler: str, partition: int) -> None:
    """Enqueue a dispatch for the handler's cursor, or for `CALL_LOG` the job that folds calls.

    At most one waits, however long no worker runs.
    """
    target = queue(dispatch_queue(handler, partition), redis)
    if target.count:
        return
    target.enqueue(
        "workers.fold_calls.fold_calls" if handler == CALL_LOG else "workers.dispatch.dispatch",
        handler,
        partition,
        job_timeout=-1,  # it ends when there is nothing left to do
        result_ttl=0,
        failure_ttl=300,
        description=f"dispatch {handler}/{partition}",
    )


def call_scheduled(redis: Redis, job: str, every: float) -> bool:
    """Enqueue a periodic job if it is due, once even if several schedulers run.

    Args:
        job: a function without arguments, such as `workers.reconcile.job.reconcile`.
        every: seconds from one run to the next.

    Returns:
        Whether it was enqueued.
    """
    if not redis.set(keys.scheduled(job), "", nx=True, px=int(every * 1000)):
        return False
    target = queue(SCHEDULED, redis)
    if any(waiting.func_name == job for waiting in target.jobs):
        return False
    target.enqueue(job, job_timeout=-1, result_ttl=0, failure_ttl=3600, description=job)
    return True


def redelivery_id(handler: str, event_id: str) -> str:
    """The id of the job that redelivers an event, and of its dead letter."""
    return f"{handler}-{re.sub(r'[^A-Za-z0-9_-]', '', event_id)}"


def redeliver(
    redis: Redis,
    handler: str,
    event: CallEvent,
    *,
    delay: float,
    error: str | None = None,
) -> None:
    """Enqueue a redelivery of the event that a parked lane waits for.

    Args:
        delay: seconds from now.
        error: why the last attempt failed.
    """
    target = queue(redeliver_queue(handler), redis)
    job = _job(target, handler, event, {"error": error})
    target.failed_job_registry.remove(job.id)
    if delay > 0:
        target.schedule_job(job, datetime.now(UTC) + timedelta(seconds=delay))
    else:
        target.enqueue_job(job)


def bury(
    redis: Redis, handler: str, event: CallEvent, *, attempt: int, error: str, trace: str
) -> None:
    """Make a delivery a dead letter.

    Args:
        attempt: the number of the last attempt.
        error: why it failed, as a sentence.
        trace: the stack trace.
    """
    target = queue(redeliver_queue(handler), redis)
    died = datetime.now(UTC).isoformat(timespec="seconds")
    job = _job(target, handler, event, {"attempt": attempt, "error": error, "died": died})
    with redis.pipeline() as pipeline:
        job.set_status(JobStatus.FAILED, pipeline=pipeline)
        job.save(pipeline=pipeline)
        pipeline.sadd(target.redis_queues_keys, target.key)
        target.failed_job_registry.add(job, ttl=_FOREVER, exc_string=trace, pipeline=pipeline)
        Result.create_failure(job, _FOREVER, exc_string=trace, pipeline=pipeline)
        pipeline.execute()


def redeliveries(redis: Redis, handler: str) -> set[str]:
    """The ids of the handler's redeliveries that are enqueued, scheduled or running.

    A job's status is not reliable: RQ sets it before it moves the job, and a killed worker never
    corrects it. Nor is its time in RQ's registry, which depends on the worker's clock. The key
    that the worker keeps alive is.
    """
    target = queue(redeliver_queue(handler), redis)
    with redis.pipeline() as pipeline:
        pipeline.lrange(target.key, 0, -1)
        pipeline.zrange(target.scheduled_job_registry.key, 0, -1)
        pipeline.zrange(target.started_job_registry.key, 0, -1)
        enqueued, scheduled, started = pipeline.execute()
    executions = [Execution.from_composite_key(each.decode(), redis) for each in started]
    with redis.pipeline(transaction=False) as pipeline:
        for execution in executions:
            pipeline.ttl(execution.key)
        alive_for = pipeline.execute()
    running = (
        execution.job_id.encode()
        for execution, seconds in zip(executions, alive_for, strict=True)
        if 0 <= seconds <= _LONGEST_SILENCE
    )
    return {job_id.decode() for job_id in (*enqueued, *scheduled, *running)}


def revive(redis: Redis, handler: str, event: CallEvent) -> None:
    """Enqueue a redelivery whose job was lost with its process."""
    target = queue(redeliver_queue(handler), redis)
    job_id = redelivery_id(handler, event.id)
    # RQ's record of the dead process would otherwise end the new job.
    running = target.started_job_registry.key
    executions: Any = redis.zrange(running, 0, -1)
    for execution in executions:
        if execution.partition(b":")[0] == job_id.encode():
            redis.zrem(running, execution)
    target.intermediate_queue.remove(job_id)
    redeliver(redis, handler, event, delay=0)


def bring_forward(redis: Redis, handler: str, seconds: int) -> None:
    """Make the handler's redeliveries due earlier."""
    scheduled = queue(redeliver_queue(handler), redis).scheduled_job_registry.key
    job_ids: Any = redis.zrange(scheduled, 0, -1)
    with redis.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.zadd(scheduled, {job_id: -seconds}, xx=True, incr=True)
        pipeline.execute()


def forget(redis: Redis, handler: str, partitions: int) -> None:
    """Delete the handler's jobs except its dead letters. None of them may be running."""
    for partition in range(partitions):
        queue(dispatch_queue(handler, partition), redis).empty()  # type: ignore[no-untyped-call]
    target = queue(redeliver_queue(handler), redis)
    target.empty()  # type: ignore[no-untyped-call]
    for job_id in target.scheduled_job_registry.get_job_ids():
        target.scheduled_job_registry.remove(job_id)
        job = target.fetch_job(job_id)
        if job is not None:
            job.delete()


def is_dead(redis: Redis, handler: str, event_id: str) -> bool:
    """Return whether the event is one of the handler's dead letters."""
    registry = queue(redeliver_queue(handler), redis).failed_job_registry
    return redelivery_id(handler, event_id) in registry


def _job(target: Queue, handler: str, event: CallEvent, meta: dict[str, Any]) -> Job:
    return target.create_job(
        "workers.redeliver.redeliver",
        args=(handler, event.as_dict()),
        job_id=redelivery_id(handler, event.id),
        timeout=-1,  # the handler's timeout ends an attempt
        result_ttl=0,
        failure_ttl=_FOREVER,  # until it is retried or discarded
        retry=_UNTIL_DEAD,
        description=f"redeliver {event.type.value} of call {event.call} to {handler}",
        meta=meta,
    )
