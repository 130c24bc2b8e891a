"""Operations on everything that a filter matches: announced, then done after some seconds.

An operation waits in Redis until its `due`, and can be undone until then. Any console takes it
over when the one that did it has died: what was done is no longer matched, so nothing is done
twice.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

import msgspec
from msgspec.structs import replace
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.exceptions import WatchError

from offhook.inbox import Inbox, keys
from offhook.operations import dead_letters
from offhook.operations.audit import Change, note_change
from offhook.operations.dead_letters import DeadLetter, Filter
from offhook.operations.run_lease import RunLease

UNDO = timedelta(seconds=10)
_KEEP = timedelta(hours=1)  # that an operation is shown after it ended
_LEASE = 30  # seconds after which another process takes an operation over
_STEP = 50  # dead letters between two looks at whether to stop

Kind = Literal["retry", "discard"]
State = Literal["waiting", "running", "done", "undone", "stopped"]


class BulkOperation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation.

    Attributes:
        count: number of dead letters that matched when it was asked for.
        done: number of them that were retried or discarded.
        wanted: the filter; `until` keeps those out that died later.
        due: when it begins.
    """

    id: str
    kind: Kind
    by: str
    wanted: Filter
    count: int
    asked: datetime
    due: datetime
    state: State = "waiting"
    done: int = 0
    ended: datetime | None = None


class BulkOperations:
    """The operations of an installation."""

    def __init__(self, inbox: Inbox, rq: BlockingRedis) -> None:
        self._inbox = inbox
        self._redis: Redis = inbox.redis
        self._rq = rq

    async def ask(self, kind: Kind, wanted: Filter, by: str, count: int) -> BulkOperation:
        """Announce an operation."""
        now = datetime.now(UTC)
        wanted = replace(wanted, until=wanted.until or now)
        asked = BulkOperation(
            id=secrets.token_hex(8),
            kind=kind,
            by=by,
            wanted=wanted,
            count=count,
            asked=now,
            due=now + UNDO,
        )
        await self._redis.hset(keys.OPERATIONS, asked.id, _encode(asked))
        await self._note(by, asked, "asked")
        return asked

    async def get(self, id_: str) -> BulkOperation | None:
        """The operation with this id."""
        stored: Any = await self._redis.hget(keys.OPERATIONS, id_)
        return None if stored is None else _decode(stored)

    async def all(self) -> list[BulkOperation]:
        """The operations that wait, run, or ended in the last hour, newest first."""
        stored: Any = await self._redis.hgetall(keys.OPERATIONS)
        found = sorted(map(_decode, stored.values()), key=lambda each: each.asked, reverse=True)
        now = datetime.now(UTC)
        old = [each.id for each in found if each.ended and now - each.ended > _KEEP]
        if old:
            await self._redis.hdel(keys.OPERATIONS, *old)
        return [each for each in found if each.id not in old]

    async def undo(self, id_: str, by: str) -> BulkOperation | None:
        """Undo an operation that has not begun, or stop one that runs.

        Returns:
            The operation as it is now; None if there is none with this id.
        """

        def end(operation: BulkOperation) -> BulkOperation:
            state: State = "undone" if operation.state == "waiting" else "stopped"
            return replace(operation, state=state, ended=datetime.now(UTC))

        ended = await self._change(id_, end)
        if ended is None:
            return await self.get(id_)
        await self._note(by, ended, "undone" if ended.state == "undone" else "stopped")
        return ended

    async def run_due(self, changed: Callable[[], None] = lambda: None) -> None:
        """Do the operations that are due and that no other process does.

        Args:
            changed: called after each step.
        """
        now = datetime.now(UTC)
        for operation in await self.all():
            if operation.ended is None and operation.due <= now:
                await self._run(operation, changed)

    async def _run(self, operation: BulkOperation, changed: Callable[[], None]) -> None:
        lease = RunLease(self._redis, keys.operation_lease(operation.id), _LEASE)
        if not await lease.take():
            return
        if await self._change(operation.id, lambda each: replace(each, state="running")):
            letters = await asyncio.to_thread(
                lambda: list(dead_letters.find(self._rq, operation.wanted))
            )
            for at in range(0, len(letters), _STEP):
                done = await self._do(operation.kind, letters[at : at + _STEP])
                stopped = not await self._change(operation.id, partial(_add, done))
                if stopped or not await lease.renew():
                    break  # or another process goes on with it
                changed()
            else:
                await self._finish(operation)
        await lease.release()
        changed()

    async def _finish(self, operation: BulkOperation) -> None:
        ended = await self._change(operation.id, _end)
        if ended is not None:
            await self._note(ended.by, ended, "done")

    async def _note(
        self, by: str, operation: BulkOperation, what: Literal["asked", "done", "stopped", "undone"]
    ) -> None:
        change = Change(f"{operation.kind}-{what}")
        numbers = {"number": operation.count, "done": operation.done}
        await note_change(self._redis, by, change, numbers, operation=operation.id)

    async def _do(self, kind: Kind, letters: Sequence[DeadLetter]) -> int:
        if kind == "retry":
            return await dead_letters.retry(self._inbox, self._rq, letters)
        return await asyncio.to_thread(dead_letters.discard, self._rq, letters)

    async def _change(
        self, id_: str, change: Callable[[BulkOperation], BulkOperation]
    ) -> BulkOperation | None:
        """Change an operation that has not ended, in one step. None: it has ended."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            while True:
                await pipeline.watch(keys.OPERATIONS)
                stored: Any = await pipeline.hget(keys.OPERATIONS, id_)
                operation = None if stored is None else _decode(stored)
                if operation is None or operation.ended is not None:
                    await pipeline.unwatch()  # type: ignore[no-untyped-call]
                    return None
                changed = change(operation)
                pipeline.multi()  # type: ignore[no-untyped-call]
                pipeline.hset(keys.OPERATIONS, id_, _encode(changed))
                with suppress(WatchError):
                    await pipeline.execute()
                    return changed


def _add(done: int, operation: BulkOperation) -> BulkOperation:
    return replace(operation, done=operation.done + done)


def _end(operation: BulkOperation) -> BulkOperation:
    return replace(operation, state="done", ended=datetime.now(UTC))


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(BulkOperation).decode
