"""RQ as Offhook uses it: the names of its queues and jobs, JSON, and what is enqueued by name.

Every worker process listens to exactly one queue: RQ moves a job off a single queue in one step,
and a worker killed at that moment loses none.
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
from offhook.inbox.keys import CALL_LOG

SCHEDULED = "offhook.scheduled"  # the queue of what is done at its time and not for an event
AFTER_DEATH = 5  # seconds until a redelivery whose process was killed is attempted again

# A redelivery's own job says when it is dead; until then RQ repeats it whatever kills its process.
_UNTIL_DEAD = Retry(max=100_000, interval=AFTER_DEATH)
_LONGEST_SILENCE = 120  # seconds; a sign of life that is good for longer says nothing
_FOR_EVER = -1


def dispatch_queue(handler: str, partition: int) -> str:
    """The queue whose worker serves the handler's cursor on one partition."""
    return f"offhook.{handler}.{partition}"


def redeliver_queue(handler: str) -> str:
    """The queue of the handler's redeliveries; its failed registry holds the dead letters."""
    return f"offhook.{handler}.redeliver"


def with_redeliveries(redis: Redis) -> list[str]:
    """The handlers that ever had a redelivery or a dead letter, configured or not."""
    pattern = re.compile(re.escape(redeliver_queue("NAME")).replace("NAME", "(.+)"))
    found = (pattern.fullmatch(each.name) for each in Queue.all(connection=redis))
    return sorted(match[1] for match in found if match)


def queue(name: str, redis: Redis) -> Queue:
    """An RQ queue of ours."""
    return Queue(name, connection=redis, serializer=JSONSerializer)


def wake(redis: Redis, handler: str, partition: int) -> None:
    """Call a dispatch for the handler's cursor, or what puts the calls together for theirs.

    While no worker runs, one call waits for it, not one for every few seconds that it is away.
    """
    target = queue(dispatch_queue(handler, partition), redis)
    if target.count:
        return  # whoever comes to that one finds all that there is
    target.enqueue(
        "workers.fold_calls.calls" if handler == CALL_LOG else "workers.dispatch.dispatch",
        handler,
        partition,
        job_timeout=-1,  # it ends by itself when it has been quiet
        result_ttl=0,
        failure_ttl=300,
        description=f"dispatch {handler}/{partition}",
    )


def call_scheduled(redis: Redis, job: str, every: float) -> bool:
    """Enqueue a scheduled job when it is due, once for however many schedulers there are.

    Args:
        job: its name, such as `workers.reconcile.job.reconcile`; it takes no arguments.
        every: seconds from one run to the next.

    Returns:
        Whether it was.
    """
    if not redis.set(f"offhook:scheduled:{job}", "", nx=True, px=int(every * 1000)):
        return False
    target = queue(SCHEDULED, redis)
    if any(waiting.func_name == job for waiting in target.jobs):
        return False  # nobody has come to the last one yet
    target.enqueue(job, job_timeout=-1, result_ttl=0, failure_ttl=3600, description=job)
    return True


def redelivery_id(handler: str, event_id: str) -> str:
    """The id of the job that redelivers an event, and of the dead letter that it may become."""
    return f"{handler}-{re.sub(r'[^A-Za-z0-9_-]', '', event_id)}"


def redeliver(
    redis: Redis,
    handler: str,
    event: CallEvent,
    *,
    delay: float,
    error: str | None = None,
) -> None:
    """Have the event that a parked lane waits for delivered again, as a job of its own.

    Args:
        delay: seconds from now; 0 for at once.
        error: why the last attempt failed.
    """
    target = queue(redeliver_queue(handler), redis)
    job = _job(target, handler, event, {"error": error})
    target.failed_job_registry.remove(job.id)
    if delay > 0:
        target.schedule_job(job, _now() + timedelta(seconds=delay))
    else:
        target.enqueue_job(job)


def bury(
    redis: Redis, handler: str, event: CallEvent, *, attempt: int, error: str, trace: str
) -> None:
    """Lay a delivery among the dead letters, without another attempt.

    Args:
        attempt: the number of the last attempt.
        error: why it failed, as a sentence.
        trace: the traceback.
    """
    target = queue(redeliver_queue(handler), redis)
    job = _job(target, handler, event, {"attempt": attempt, "error": error, "died": _now_text()})
    with redis.pipeline() as pipeline:
        job.set_status(JobStatus.FAILED, pipeline=pipeline)
        job.save(pipeline=pipeline)
        pipeline.sadd(target.redis_queues_keys, target.key)
        target.failed_job_registry.add(job, ttl=_FOR_EVER, exc_string=trace, pipeline=pipeline)
        Result.create_failure(job, _FOR_EVER, exc_string=trace, pipeline=pipeline)
        pipeline.execute()


def redeliveries(redis: Redis, handler: str) -> set[str]:
    """The ids of the handler's redeliveries that are enqueued, scheduled, or being made.

    A job's status does not say so: RQ writes it before the job is where it says, and a worker
    that is killed never corrects it. Nor does its time in RQ's registry, which is that of its
    worker's clock: the key that the worker keeps alive does.
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
    """Have a parked lane's event delivered again, whose job was lost with a process."""
    target = queue(redeliver_queue(handler), redis)
    job_id = redelivery_id(handler, event.id)
    # What RQ remembers of the dead process must not end the new job's life.
    running = target.started_job_registry.key
    executions: Any = redis.zrange(running, 0, -1)
    for execution in executions:
        if execution.partition(b":")[0] == job_id.encode():
            redis.zrem(running, execution)
    target.intermediate_queue.remove(job_id)
    redeliver(redis, handler, event, delay=0)


def bring_forward(redis: Redis, handler: str, seconds: int) -> None:
    """Have the handler's redeliveries come earlier by so many seconds."""
    scheduled = queue(redeliver_queue(handler), redis).scheduled_job_registry.key
    job_ids: Any = redis.zrange(scheduled, 0, -1)
    with redis.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.zadd(scheduled, {job_id: -seconds}, xx=True, incr=True)
        pipeline.execute()


def forget(redis: Redis, handler: str, partitions: int) -> None:
    """Delete the handler's jobs, all but its dead letters. Nobody may work on them."""
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
    """Does this event lie among the handler's dead letters?"""
    registry = queue(redeliver_queue(handler), redis).failed_job_registry
    return redelivery_id(handler, event_id) in registry


def _job(target: Queue, handler: str, event: CallEvent, meta: dict[str, Any]) -> Job:
    return target.create_job(
        "workers.redeliver.redeliver",
        args=(handler, event.as_dict()),
        job_id=redelivery_id(handler, event.id),
        timeout=-1,  # the handler's own timeout ends an attempt
        result_ttl=0,
        failure_ttl=_FOR_EVER,  # a dead letter stays until somebody sends or discards it
        retry=_UNTIL_DEAD,
        description=f"redeliver {event.type.value} of call {event.call} to {handler}",
        meta=meta,
    )


def _now() -> datetime:
    return datetime.now(UTC)


def _now_text() -> str:
    return _now().isoformat(timespec="seconds")
