"""Dead letters: deliveries out of attempts. Find, retry or discard them.

They are the failed jobs of an RQ queue of each handler, so that RQ's tools show them too.
"""

import asyncio
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import msgspec
from redis import Redis
from redis.exceptions import WatchError
from rq.job import Job, JobStatus

from offhook import queues
from offhook.event import CallEvent, EventType
from offhook.inbox import Inbox, ParkedLanes
from offhook.settings import tenant_of_plugin

log = logging.getLogger("offhook.dead_letters")

_AT_ONCE = 500  # dead letters in one request
_T = TypeVar("_T")


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


class DeadLetterHead(NamedTuple):
    """A dead letter without what takes longer to read: what a list of many needs."""

    id: str
    handler: str
    error: str
    died: datetime


_Letter = TypeVar("_Letter", bound=DeadLetter | DeadLetterHead)


class Filter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A selection of dead letters; a field that is None selects all.

    Attributes:
        call: the CallID, or PBX/CallID.
        since: the earliest `died`.
        until: the latest `died`.
        error: why the last attempt failed, verbatim.
        ids: those of the dead letters.
        tenant: whose handlers; empty: the operator's.
    """

    handler: str | None = None
    call: str | None = None
    extension: str | None = None
    type: EventType | None = None
    since: datetime | None = None
    until: datetime | None = None
    error: str | None = None
    ids: frozenset[str] | None = None
    tenant: str | None = None

    def admits(self, handler: str) -> bool:
        """Return whether to look at the dead letters of a handler, by its full name."""
        return self.handler in (None, handler) and self.tenant in (None, tenant_of_plugin(handler))

    def __contains__(self, letter: DeadLetter) -> bool:
        event = letter.event
        return (
            self.selects(letter)
            and self.call in (None, event.call, event.call_id)
            and self.extension in (None, event.extension)
            and self.type in (None, event.type)
        )

    def selects(self, letter: DeadLetter | DeadLetterHead) -> bool:
        """Return whether a dead letter is selected, apart from its event."""
        return (
            self.admits(letter.handler)
            and (self.since is None or letter.died >= self.since)
            and (self.until is None or letter.died <= self.until)
            and self.error in (None, letter.error)
            and (self.ids is None or letter.id in self.ids)
        )


def find(rq: Redis, wanted: Filter | None = None, after: str | None = None) -> Iterator[DeadLetter]:
    """The dead letters that match the filter, in the order of their events.

    One whose event cannot be read, as of a later version, is logged and left.

    Args:
        after: only those that come after the one with this id.
    """
    wanted = wanted or Filter()
    for page in _pages_of(_ids(rq, wanted, after)):
        stored = _read(rq, [job_id for _, _, job_id in page], "data")
        for (_, name, job_id), (data, *facts) in zip(page, stored, strict=True):
            try:
                if data and (letter := _letter(job_id, name, data, facts)) in wanted:
                    yield letter
            except (msgspec.DecodeError, RecursionError) as error:
                _cannot_read(job_id, error)


def heads(rq: Redis, wanted: Filter) -> Iterator[DeadLetterHead]:
    """What a list needs of the dead letters that match, in the order of their events.

    Args:
        wanted: without call, extension and type.
    """
    for page in _pages_of(_ids(rq, wanted)):
        stored = _read(rq, [job_id for _, _, job_id in page])
        for (_, name, job_id), facts in zip(page, stored, strict=True):
            if any(facts) and wanted.selects(head := _head(job_id, name, facts)):
                yield head


def get(rq: Redis, ids: Iterable[str]) -> Iterator[DeadLetter]:
    """The dead letters with these ids, in this order, as far as they exist."""
    for page in _pages_of(ids):
        found: list[DeadLetter] = []
        for job_id, (data, *facts) in zip(page, _read(rq, page, "data"), strict=True):
            # Any job of RQ may have an id that is asked for.
            with suppress(msgspec.DecodeError):
                if data:
                    found.append(_letter(job_id, None, data, facts))
        with rq.pipeline(transaction=False) as pipeline:
            for letter in found:
                pipeline.zscore(queues.dead_key(letter.handler), letter.id)
            scores = pipeline.execute()
        for letter, score in zip(found, scores, strict=True):
            if score is not None:
                yield letter


def _ids(rq: Redis, wanted: Filter, after: str | None = None) -> list[tuple[str, str, str]]:
    """Those that may match, in order: of each the event's id, the handler, and its own id."""
    names = [wanted.handler] if wanted.handler else queues.with_dead_letters(rq)
    ids = [
        # An id ends in the event's, so that only those are read that the caller takes.
        (job_id.removeprefix(queues.dead_letter_id(name, "")), name, job_id)
        for name in names
        if wanted.admits(name)
        for job_id in queues.dead_registry(rq, name).get_job_ids(cleanup=False)
    ]
    if wanted.ids is not None:
        ids = [each for each in ids if each[2] in wanted.ids]
    if after is not None:
        place = _place(after, queues.with_dead_letters(rq))
        ids = [each for each in ids if each[:2] > place]
    return sorted(ids)


def _pages_of(items: Iterable[_T]) -> Iterator[list[_T]]:
    left = iter(items)
    while page := list(islice(left, _AT_ONCE)):
        yield page


def _read(rq: Redis, ids: Iterable[str], *more: str) -> list[list[bytes | None]]:
    """Fields of the jobs with these ids: `more`, then those that `_noted` reads."""
    with rq.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.hmget(Job.key_for(job_id), *more, "meta", "ended_at", "created_at")
        return pipeline.execute()


def _place(letter_id: str, handlers: Iterable[str]) -> tuple[str, str]:
    """Event and handler of a dead letter, which may have been deleted meanwhile."""
    names = [each for each in handlers if letter_id.startswith(queues.dead_letter_id(each, ""))]
    name = max(names, key=len, default="")
    return letter_id.removeprefix(queues.dead_letter_id(name, "")), name


def counts(rq: Redis, handlers: Sequence[str]) -> dict[str, int]:
    """The number of dead letters of each handler."""
    with rq.pipeline(transaction=False) as pipeline:
        for name in handlers:
            pipeline.zcard(queues.dead_registry(rq, name).key)
        return dict(zip(handlers, pipeline.execute(), strict=True))


def traceback(rq: Redis, letter: DeadLetter) -> str:
    """The stack trace of the last attempt; empty if it was not kept."""
    job = queues.queue(queues.dead_queue(letter.handler), rq).fetch_job(letter.id)
    result = job.latest_result() if job else None
    return (result.exc_string if result else None) or ""


async def retry(
    inbox: Inbox,
    rq: Redis,
    letters: Iterable[DeadLetter],
    advance: Callable[[int], None] = lambda done: None,
) -> int:
    """Redeliver the events, each after those that its call is still waiting for.

    A dead letter first moves to where RQ's own tools enqueue it, so that a server no longer takes
    its event for dead; then its event joins its lane; then it is deleted. After a crash in between,
    the scheduler goes on within a minute, which can deliver the event twice.

    Args:
        letters: in the order in which each call gets them, such as that of `find`.
        advance: called with the number of those that are done.

    Returns:
        How many of them were still dead letters.
    """
    retried = 0
    for page in _pages(letters, advance):
        name = page[0].handler
        made = await asyncio.to_thread(_requeue, rq, name, [each.id for each in page])
        await ParkedLanes(inbox, name).rejoin([each.event for each in page if each.id in made])
        await asyncio.to_thread(_delete, rq, name, made, requeued=True)
        retried += len(made)
    return retried


async def rejoin_requeued(inbox: Inbox, rq: Redis, handler: str) -> None:
    """Go on with retries that a crash has stopped, and with those made with RQ's own tools."""
    jobs = await asyncio.to_thread(queues.requeued, rq, handler)
    for page in _pages_of(jobs):
        ids = [job.id for job in page]
        made = await asyncio.to_thread(_made, rq, handler, ids, requeued=True)
        events = []
        for job in page:
            try:
                if job.id in made:
                    events.append(CallEvent.from_dict(job.args[1]))
            except msgspec.ValidationError as error:
                _cannot_read(job.id, error)
                del made[job.id]  # it stays where it is
        await ParkedLanes(inbox, handler).rejoin(events)
        await asyncio.to_thread(_delete, rq, handler, made, requeued=True)


def _cannot_read(job_id: str, error: Exception) -> None:
    log.error("dead letter %s cannot be read: %s", job_id, error)


def discard(
    rq: Redis,
    letters: Iterable[DeadLetter | DeadLetterHead],
    advance: Callable[[int], None] = lambda done: None,
) -> int:
    """Delete dead letters; their events are not delivered.

    Args:
        advance: called with the number of those that are done.

    Returns:
        How many were still dead letters; the events of the others may be redelivered right now.
    """
    discarded = 0
    for page in _pages(letters, advance):
        name = page[0].handler
        discarded += _delete(rq, name, _made(rq, name, [each.id for each in page]))
    return discarded


def _pages(letters: Iterable[_Letter], advance: Callable[[int], None]) -> Iterator[list[_Letter]]:
    """The dead letters in pages, each of one handler."""
    done = 0
    for some in _pages_of(letters):
        for name in dict.fromkeys(each.handler for each in some):
            yield [each for each in some if each.handler == name]
        done += len(some)
        advance(done)


def _made(
    rq: Redis, handler: str, ids: Iterable[str], *, requeued: bool = False
) -> dict[str, bytes]:
    """Those that are dead letters: the id, and when the job was made.

    An event that dies again has the same id, but a new job.

    Args:
        requeued: those that are dead letters no longer, but still jobs.
    """
    ids = list(ids)
    with rq.pipeline(transaction=False) as pipeline:
        pipeline.zmscore(queues.dead_registry(rq, handler).key, ids)
        for each in ids:
            pipeline.hget(Job.key_for(each), "created_at")
        scores, *found = pipeline.execute()
    rows = zip(ids, scores, found, strict=True)
    return {each: made for each, score, made in rows if (score is None) == requeued and made}


def _requeue(rq: Redis, handler: str, ids: Sequence[str]) -> dict[str, bytes]:
    """Enqueue those that are dead letters, as RQ's own tools do. Return what `_made` does."""
    registry, queue = queues.dead_registry(rq, handler), queues.dead_queue(handler)
    while True:
        with rq.pipeline() as pipeline:
            pipeline.watch(registry.key, *map(Job.key_for, ids))  # type: ignore[no-untyped-call]
            made = _made(rq, handler, ids)
            pipeline.multi()
            for each in made:
                pipeline.zrem(registry.key, each)
                pipeline.rpush(queues.queue(queue, rq).key, each)
                pipeline.hset(Job.key_for(each), "status", JobStatus.QUEUED)
            with suppress(WatchError):
                pipeline.execute()
                return made


def _delete(rq: Redis, handler: str, made: dict[str, bytes], *, requeued: bool = False) -> int:
    """Delete those that have not become dead letters again, and return how many."""
    registry = queues.dead_registry(rq, handler)
    queue = queues.queue(queues.dead_queue(handler), rq)
    while made:
        with rq.pipeline() as pipeline:
            pipeline.watch(registry.key, *map(Job.key_for, made))  # type: ignore[no-untyped-call]
            now = _made(rq, handler, made, requeued=requeued)
            same = [each for each in made if now.get(each) == made[each]]
            pipeline.multi()
            if same:
                pipeline.zrem(registry.key, *same)
                for each in same if requeued else ():
                    pipeline.lrem(queue.key, 1, each)
                pipeline.delete(*map(Job.key_for, same), *(f"rq:results:{each}" for each in same))
            with suppress(WatchError):
                pipeline.execute()
                return len(same)
    return 0


class _Meta(msgspec.Struct, frozen=True, gc=False):
    """What `queues.bury` notes on a job. One stopped with RQ's own tools has only RQ's metadata."""

    attempt: int = 0
    error: str = "stopped by hand"
    died: datetime | None = None


_meta = msgspec.json.Decoder(_Meta).decode
# As RQ stores a job: function, instance, arguments, keyword arguments.
_data = msgspec.json.Decoder(tuple[str, None, tuple[str, CallEvent], dict[str, Any]]).decode


def _letter(
    job_id: str, handler: str | None, data: bytes, facts: Sequence[bytes | None]
) -> DeadLetter:
    """Raises `msgspec.DecodeError` for another job."""
    with suppress(zlib.error):
        data = zlib.decompress(data)
    _, _, (name, event), _ = _data(data)
    meta, died = _noted(facts)
    return DeadLetter(job_id, handler or name, event, meta.attempt, meta.error, died)


def _head(job_id: str, handler: str, facts: Sequence[bytes | None]) -> DeadLetterHead:
    meta, died = _noted(facts)
    return DeadLetterHead(job_id, handler, meta.error, died)


def _noted(facts: Sequence[bytes | None]) -> tuple[_Meta, datetime]:
    meta, ended, created = facts
    noted = _meta(meta or b"{}")
    return noted, noted.died or datetime.fromisoformat((ended or created or b"").decode())
