"""Dead letters: deliveries that are out of attempts. Find them, send them again, discard them.

They are the failed jobs of a handler's queue of redeliveries.
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
from offhook.inbox import Inbox

_AT_ONCE = 500  # read in one step


@dataclass(frozen=True)
class DeadLetter:
    """A delivery that is out of attempts.

    Attributes:
        id: names it among those of all handlers.
        attempts: how many were made.
        error: why the last one failed, as a sentence.
        died: when that was.
    """

    id: str
    handler: str
    event: CallEvent
    attempts: int
    error: str
    died: datetime

    def as_dict(self) -> dict[str, Any]:
        """The dead letter as plain JSON values."""
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
    """Which dead letters; what is None lets all of them through.

    Attributes:
        call: its CallID, or PBX/CallID.
        since: when they died, at the earliest.
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
    """The dead letters that the filter lets through, in the order in which their events came."""
    wanted = wanted or Filter()
    handlers = [wanted.handler] if wanted.handler else queues.with_redeliveries(rq)
    found = [letter for name in handlers for letter in _of(rq, name) if letter in wanted]
    return sorted(found, key=lambda letter: (letter.event.id, letter.handler))


def count(rq: Redis, handler: str) -> int:
    """How many dead letters the handler has."""
    return int(_queue(rq, handler).failed_job_registry.get_job_count(cleanup=False))


def traceback(rq: Redis, letter: DeadLetter) -> str:
    """Where the last attempt failed, or nothing when that was not kept."""
    job = _queue(rq, letter.handler).fetch_job(letter.id)
    result = job.latest_result() if job else None
    return (result.exc_string if result else None) or ""


async def retry(inbox: Inbox, rq: Redis, letter: DeadLetter) -> bool:
    """Have the event delivered again, behind what its call still waits for.

    To keep a call's order, retry its dead letters in the order of `find`. The event is in its lane
    before the dead letter goes: whoever is killed in between has sent it twice at worst.

    Returns:
        False: it is none any more, somebody else was faster.
    """
    if not await asyncio.to_thread(_is_dead, rq, letter):
        return False
    if await inbox.rejoin(letter.handler, letter.event):
        await asyncio.to_thread(queues.redeliver, rq, letter.handler, letter.event, delay=0)
        return True
    return await asyncio.to_thread(discard, rq, letter)


def discard(rq: Redis, letter: DeadLetter) -> bool:
    """Forget a dead letter; its event is not delivered.

    Returns:
        False: it is none any more, perhaps its event is on its way again.
    """
    target = _queue(rq, letter.handler)

    def delete(pipeline: Pipeline) -> Any:
        # Its job has the name of the next redelivery of the event, which must stay.
        job = target.fetch_job(letter.id)
        if job is None or not _is_dead(rq, letter):
            return False
        pipeline.multi()
        job.delete(pipeline=pipeline, remove_from_queue=False)
        return True

    watched = (Job.key_for(letter.id), target.failed_job_registry.key)
    return bool(rq.transaction(delete, *watched, value_from_callable=True))


def _queue(rq: Redis, handler: str) -> Queue:
    return queues.queue(queues.redeliver_queue(handler), rq)


def _is_dead(rq: Redis, letter: DeadLetter) -> bool:
    return letter.id in _queue(rq, letter.handler).failed_job_registry


def _of(rq: Redis, handler: str) -> Iterator[DeadLetter]:
    ids = _queue(rq, handler).failed_job_registry.get_job_ids(cleanup=False)
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        for job in Job.fetch_many(some, connection=rq, serializer=JSONSerializer):
            if job is not None:  # otherwise it has gone meanwhile
                yield _letter(handler, job)


def _letter(handler: str, job: Job) -> DeadLetter:
    died = job.meta.get("died")
    # A job that was stopped with RQ's own tools has no more than RQ knows of it.
    return DeadLetter(
        id=job.id,
        handler=handler,
        event=CallEvent.from_dict(job.args[1]),
        attempts=int(job.meta.get("attempt", 0)),
        error=job.meta.get("error") or "stopped by hand",
        died=datetime.fromisoformat(died) if died else job.ended_at or job.created_at,
    )
