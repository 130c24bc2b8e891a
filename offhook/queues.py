"""RQ as Offhook uses it: the names of queues and jobs, dead letters, and jobs by name, as JSON.

Every worker process listens to exactly one queue: RQ takes a job off a single queue atomically, so
a worker killed at that moment loses no job.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry
from rq.results import Result
from rq.serializers import JSONSerializer

from offhook.event import CallEvent

SCHEDULED = "offhook.scheduled"  # the queue of periodic jobs
REDELIVER = "workers.redeliver.redeliver"  # the function of a dead letter's job

_FOREVER = -1


def serve_queue(pool: str) -> str:
    """The queue of the workers that serve a pool of handlers; empty: the shared one."""
    return f"offhook.serve.{pool}" if pool else "offhook.serve"


def dead_queue(handler: str) -> str:
    """The queue whose failed registry holds the handler's dead letters."""
    return f"offhook.{handler}.redeliver"


def dead_registry(redis: Redis, handler: str) -> FailedJobRegistry:
    """The registry of the handler's dead letters."""
    registry: FailedJobRegistry = queue(dead_queue(handler), redis).failed_job_registry
    return registry


def dead_key(handler: str) -> str:
    """The sorted set in Redis that is this registry."""
    return FailedJobRegistry.key_template.format(dead_queue(handler))


def with_dead_letters(redis: Redis) -> list[str]:
    """Handlers that have ever had a dead letter, configured or not."""
    pattern = re.compile(re.escape(dead_queue("NAME")).replace("NAME", "(.+)"))
    found = (pattern.fullmatch(each.name) for each in Queue.all(connection=redis))
    return sorted(match[1] for match in found if match)


def delete_of_tenant(redis: Redis, tenant: str) -> None:
    """Delete the queues of a tenant's handlers and pools."""
    prefixes = (dead_queue(f"{tenant}/").removesuffix(".redeliver"), serve_queue(f"{tenant}/"))
    for each in Queue.all(connection=redis, serializer=JSONSerializer):
        if each.name.startswith(prefixes):
            each.delete()


def queue(name: str, redis: Redis) -> Queue:
    """An RQ queue with JSON jobs."""
    return Queue(name, connection=redis, serializer=JSONSerializer)


def call_serve(redis: Redis, pool: str, servers: int) -> None:
    """Enqueue the job that serves a pool, unless one waits.

    Args:
        servers: number of processes that serve the pool on this machine.
    """
    target = queue(serve_queue(pool), redis)
    if target.count:
        return
    target.enqueue(
        "workers.serve.serve",
        pool,
        servers,
        job_timeout=-1,  # it runs until it is stopped
        result_ttl=0,
        failure_ttl=300,
        description=f"serve {pool or 'the handlers'}",
    )


def call_scheduled(redis: Redis, job: str) -> None:
    """Enqueue a periodic job, unless it waits already.

    Args:
        job: a function without arguments, such as `workers.reconcile.job.reconcile`.
    """
    target = queue(SCHEDULED, redis)
    if not any(waiting.func_name == job for waiting in target.jobs):
        target.enqueue(job, job_timeout=-1, result_ttl=0, failure_ttl=3600, description=job)


def dead_letter_id(handler: str, event_id: str) -> str:
    """The id of the job that is the dead letter of an event.

    RQ allows no slash in it. No name of a tenant or handler has a capital letter.
    """
    return f"{handler.replace('/', '-T-')}-{re.sub(r'[^A-Za-z0-9_-]', '', event_id)}"


def bury(
    redis: Redis, handler: str, event: CallEvent, *, attempt: int, error: str, trace: str
) -> None:
    """Make a delivery a dead letter.

    Args:
        attempt: the number of the last attempt.
        error: why it failed, as a sentence.
        trace: the stack trace.
    """
    target = queue(dead_queue(handler), redis)
    died = datetime.now(UTC).isoformat(timespec="seconds")
    job = target.create_job(
        REDELIVER,
        args=(handler, event.as_dict()),
        job_id=dead_letter_id(handler, event.id),
        timeout=-1,
        result_ttl=0,
        failure_ttl=_FOREVER,  # until it is retried or discarded
        description=f"redeliver {event.type.value} of call {event.call} to {handler}",
        meta={"attempt": attempt, "error": error, "died": died},
    )
    with redis.pipeline() as pipeline:
        job.set_status(JobStatus.FAILED, pipeline=pipeline)
        job.save(pipeline=pipeline)
        pipeline.sadd(target.redis_queues_keys, target.key)
        pipeline.lrem(target.key, 0, job.id)  # of the letter before, whose retry is not done yet
        target.failed_job_registry.add(job, ttl=_FOREVER, exc_string=trace, pipeline=pipeline)
        Result.create_failure(job, _FOREVER, exc_string=trace, pipeline=pipeline)
        pipeline.execute()


def is_dead(redis: Redis, handler: str, event_id: str) -> bool:
    """Return whether the event is one of the handler's dead letters."""
    return dead_letter_id(handler, event_id) in dead_registry(redis, handler)


def with_requeued(redis: Redis, handlers: Iterable[str]) -> list[str]:
    """Those of the handlers that have dead letters which were enqueued again with RQ's own tools.

    There may be thousands of handlers: they are asked about together.
    """
    handlers = list(handlers)
    with redis.pipeline(transaction=False) as pipeline:
        for handler in handlers:
            pipeline.exists(queue(dead_queue(handler), redis).key)
        return [handler for handler, has in zip(handlers, pipeline.execute(), strict=True) if has]


def requeued(redis: Redis, handler: str) -> list[Job]:
    """The dead letters that were enqueued again with RQ's own tools."""
    target = queue(dead_queue(handler), redis)
    found = {job_id: target.fetch_job(job_id) for job_id in target.job_ids}
    for job_id in [job_id for job_id, job in found.items() if job is None]:
        target.remove(job_id)
    # Jobs without that were redeliveries of the version before, which are taken over elsewhere.
    return [job for job in found.values() if job is not None and "died" in job.meta]
