"""An inbox of the version before: a consumer group for each handler, and RQ jobs to redeliver."""

from datetime import UTC, datetime, timedelta
from typing import Any

from rq import Queue
from rq.job import Job

from offhook import queues
from offhook.event import CallEvent, to_stored
from tests.events import event

STREAM = "offhook:{0}:inbox"
CALLS = ("parked", "pending", "waits")


class EarlierInbox:
    """One partition with two handlers, and the events of three calls, three of each.

    The handler `crm` has parked one call with all its events, has the first event of the next
    pending, and has not read the others. The handler `log` has read everything.

    Attributes:
        events: by call, in order.
        due: when the redelivery of the parked call is due.
    """

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.events = {call: [event(call, n) for n in range(3)] for call in CALLS}
        self.due = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
        everything = [each for call in CALLS for each in self.events[call]]
        for number, each in enumerate(everything, 1):
            self.redis.xadd(STREAM, {"e": to_stored(each), "n": number})
        redis.set("offhook:{0}:last", len(everything))
        self.positions = [position for position, _ in self.redis.xrange(STREAM)]
        self._crm()
        self._read("log", 9)
        self.redis.xack(STREAM, "log", *self.positions)
        self._read("calls", 8)
        self.redis.xack(STREAM, "calls", *self.positions[:6])
        for handler in ("crm", "log", "calls"):
            redis.set(f"offhook:{{0}}:awake:{handler}", "waking")
            queue = queues.queue(f"offhook.{handler}.0", redis)
            queue.enqueue("workers.dispatch.dispatch", handler, 0, job_timeout=-1)

    def _crm(self) -> None:
        self._read("crm", 4)
        self.redis.xack(STREAM, "crm", *self.positions[:3])
        for each in self.events["parked"]:
            self.redis.rpush("offhook:{0}:lane:crm:main/parked", to_stored(each))
        self.redis.hset("offhook:{0}:parked:crm", "main/parked", self.events["parked"][0].id)
        self.redis.hset("offhook:{0}:attempts:crm", "main/parked", 2)
        self.redis.hset("offhook:{0}:counts:crm", "failed", 2)
        self.redis.set("offhook:{0}:circuit:crm", "open", px=60_000)
        self.redis.set("offhook:{0}:failing:crm", 7)
        job, queue = redelivery_job(self.redis, "crm", self.events["parked"][0])
        queue.schedule_job(job, self.due)

    def _read(self, group: str, count: int) -> None:
        self.redis.xgroup_create(STREAM, group, 0)
        self.redis.xreadgroup(group, "dispatch", {STREAM: ">"}, count=count)

    def enqueue_redelivery(self) -> None:
        """Make the redelivery due: RQ has moved its job to the queue."""
        job, queue = redelivery_job(self.redis, "crm", self.events["parked"][0])
        self.redis.zrem(queue.scheduled_job_registry.key, job.id)
        queue.enqueue_job(job)


def redelivery_job(redis: Any, handler: str, one: CallEvent) -> tuple[Job, Queue]:
    """Return the job that redelivers an event, not enqueued yet, and its queue."""
    queue = queues.queue(f"offhook.{handler}.redeliver", redis)
    job = queue.create_job(
        "workers.redeliver.redeliver",
        args=(handler, one.as_dict()),
        job_id=f"{handler}-{one.id}",
        timeout=-1,
        result_ttl=0,
        failure_ttl=-1,
        meta={"error": "not now"},
    )
    return job, queue
