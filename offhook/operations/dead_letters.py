"""Dead letters: deliveries out of attempts. Find, retry or discard them.

They are the failed jobs of a handler's redelivery queue.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis import Redis
from redis.client import Pipeline
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from offhook import queues
from offhook.event import CallEvent, EventType
from offhook.inbox import Inbox, ParkedLanes

_AT_ONCE = 500  # jobs read in one request


@dataclass(frozen=True)
class DeadLetter:
    """A delivery out of attempts.

    Attributes:
        id: unique across handlers.
        attempts: number of attempts.
        error: why the last attempt failed, as a sentence.
        died: when it failed.
    """

    id: str
    handler: str
    event: CallEvent
    attempts: int
    error: str
    died: datetime

    def as_dict(self) -> dict[str, Any]:
        """The dead letter as JSON values."""
        return {
            "id": self.id,
            "handler": self.handler,
            "event": self.event.as_dict(),
            "attempts": self.attempts,
            "error": self.error,
            "died": self.died.isoformat(),
        }


@dataclass(frozen=True)
class Filter:
    """A selection of dead letters; a field that is None selects all.

    Attributes:
        call: the CallID, or PBX/CallID.
        since: the earliest `died`.
    """

    handler: str | None = None
    call: str | None = None
    extension: str | None = None
    type: EventType | None = None
    since: datetime | None = None

    def __contains__(self, letter: DeadLetter) -> bool:
        event = letter.event
        return (
            self.handler in (None, letter.handler)
            and self.call in (None, event.call, event.call_id)
            and self.extension in (None, event.extension)
            and self.type in (None, event.type)
            and (self.since is None or letter.died >= self.since)
        )


def find(rq: Redis, wanted: Filter | None = None) -> list[DeadLetter]:
    """The dead letters that match the filter, in the order of their events."""
    wanted = wanted or Filter()
    handlers = [wanted.handler] if wanted.handler else queues.with_redeliveries(rq)
    found = [letter for name in handlers for letter in _of(rq, name) if letter in wanted]
    return sorted(found, key=lambda letter: (letter.event.id, letter.handler))


def count(rq: Redis, handler: str) -> int:
    """The number of the handler's dead letters."""
    return int(_queue(rq, handler).failed_job_registry.get_job_count(cleanup=False))


def traceback(rq: Redis, letter: DeadLetter) -> str:
    """The stack trace of the last attempt; empty if it was not kept."""
    job = _queue(rq, letter.handler).fetch_job(letter.id)
    result = job.latest_result() if job else None
    return (result.exc_string if result else None) or ""


async def retry(inbox: Inbox, rq: Redis, letter: DeadLetter) -> bool:
    """Redeliver the event, after those that its call is still waiting for.

    To keep a call's order, retry its dead letters in the order of `find`. The event is put into its
    lane before the dead letter is deleted, so a crash in between can deliver it twice.

    Returns:
        Whether it was still a dead letter.
    """
    if not await asyncio.to_thread(queues.is_dead, rq, letter.handler, letter.event.id):
        return False
    if await ParkedLanes(inbox, letter.handler).rejoin(letter.event):
        await asyncio.to_thread(queues.redeliver, rq, letter.handler, letter.event, delay=0)
        return True
    return await asyncio.to_thread(discard, rq, letter)


def discard(rq: Redis, letter: DeadLetter) -> bool:
    """Delete a dead letter; its event is not delivered.

    Returns:
        Whether it was still a dead letter; otherwise its event may be redelivered right now.
    """
    target = _queue(rq, letter.handler)

    def delete(pipeline: Pipeline) -> Any:
        # The event's next redelivery would have the same job id, and must stay.
        job = target.fetch_job(letter.id)
        if job is None or not queues.is_dead(rq, letter.handler, letter.event.id):
            return False
        pipeline.multi()
        job.delete(pipeline=pipeline, remove_from_queue=False)
        return True

    watched = (Job.key_for(letter.id), target.failed_job_registry.key)
    return bool(rq.transaction(delete, *watched, value_from_callable=True))


def _queue(rq: Redis, handler: str) -> Queue:
    return queues.queue(queues.redeliver_queue(handler), rq)


def _of(rq: Redis, handler: str) -> Iterator[DeadLetter]:
    ids = _queue(rq, handler).failed_job_registry.get_job_ids(cleanup=False)
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        for job in Job.fetch_many(some, connection=rq, serializer=JSONSerializer):
            if job is not None:  # deleted in the meantime
                yield _letter(handler, job)


def _letter(handler: str, job: Job) -> DeadLetter:
    died = job.meta.get("died")
    # A job stopped with RQ's own tools has only RQ's metadata.
    return DeadLetter(
        id=job.id,
        handler=handler,
        event=CallEvent.from_dict(job.args[1]),
        attempts=int(job.meta.get("attempt", 0)),
        error=job.meta.get("error") or "stopped by hand",
        died=datetime.fromisoformat(died) if died else job.ended_at or job.created_at,
    )
