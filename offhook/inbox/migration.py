"""Migration: takes over a partition of the version that had a consumer group for each handler.

That version also had RQ jobs for redeliveries. Its dead letters stay what they are.
"""

import asyncio
import logging
import re
import time
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import WatchError

from offhook.call import CALL_LOG
from offhook.inbox import keys
from offhook.inbox.scripts import script

log = logging.getLogger("offhook.migration")

_LOOK_EVERY = 1.0  # seconds between looks whether workers of that version have stopped
_REGISTRIES = ("failed", "wip", "finished", "scheduled", "deferred", "canceled")


async def migrate(redis: Redis, partition: int) -> bool:
    """Take over what the earlier version left in a partition; quick if it left nothing.

    Call it before handlers get a position or read. It takes each handler in one transaction, so it
    may be killed, and several processes may run it at once.

    Returns:
        Whether it left something.
    """
    if not await redis.exists(keys.inbox(partition)):
        return False
    groups: Any = await redis.xinfo_groups(keys.inbox(partition))
    warned = False
    for name in (group["name"].decode() for group in groups):
        while not await _take_over(redis, partition, name):
            if not warned:
                log.warning("workers of an earlier version still run: waiting until they stop")
                warned = True
            await asyncio.sleep(_LOOK_EVERY)
        log.info("partition %s of %s taken over from an earlier version", partition, name)
    return bool(groups)


async def _take_over(redis: Redis, partition: int, name: str) -> bool:
    """Move one handler, unless a process of the earlier version serves it."""
    prefix = keys.partition_prefix(partition)
    awake, parked, *others = [
        f"{prefix}{each}:{name}" for each in ("awake", "parked", "attempts", "circuit", "failing")
    ]
    script_keys = [
        keys.inbox(partition),
        keys.known(partition),
        keys.behind(partition),
        keys.read(partition),
        keys.folded(partition),
        keys.flushed(partition),
        keys.parked(partition),
        keys.attempts(partition),
        keys.due(partition),
        keys.unfinished(partition),
        keys.ready(partition),
        parked,
        *others,
        awake,
    ]
    async with redis.pipeline(transaction=True) as pipeline:
        await pipeline.watch(awake, parked)
        if await redis.get(awake) not in (None, b"waking"):
            return False
        heads: Any = await redis.hgetall(parked)
        due, done = await _jobs(redis, name, heads)
        dispatches = f"offhook.{name}.{partition}"
        dispatched: Any = await redis.lrange(f"rq:queue:{dispatches}", 0, -1)
        arguments: list[Any] = [name, int(name == CALL_LOG), int(time.time() * 1000)]
        arguments += [each for pair in due.items() for each in pair]
        pipeline.multi()  # type: ignore[no-untyped-call]
        move = redis.register_script(script("migrate"))
        await move(keys=script_keys, args=arguments, client=pipeline)
        for each in done:
            pipeline.lrem(f"rq:queue:offhook.{name}.redeliver", 0, each)
            pipeline.zrem(f"rq:scheduled:offhook.{name}.redeliver", each)
            pipeline.delete(f"rq:job:{each}", f"rq:results:{each}")
        pipeline.delete(
            f"rq:queue:{dispatches}",
            *(f"rq:job:{each.decode()}" for each in dispatched),
            *(f"rq:{each}:{dispatches}" for each in _REGISTRIES),
        )
        pipeline.srem("rq:queues", f"rq:queue:{dispatches}")
        try:
            await pipeline.execute()
        except WatchError:
            return False
    return True


async def _jobs(
    redis: Redis, name: str, heads: dict[bytes, bytes]
) -> tuple[dict[bytes, int], list[str]]:
    """When the redelivery of each parked call is due, in ms, and the jobs to delete.

    Args:
        heads: parked call -> id of the event that it waits for.
    """
    jobs = f"offhook.{name}.redeliver"
    of_call = {call: _job_id(name, event_id) for call, event_id in heads.items()}
    queued: Any = await redis.lrange(f"rq:queue:{jobs}", 0, -1)
    ids = list(dict.fromkeys([*of_call.values(), *(each.decode() for each in queued)]))
    async with redis.pipeline(transaction=False) as pipeline:
        for each in ids:
            pipeline.zscore(f"rq:scheduled:{jobs}", each)
            pipeline.hget(f"rq:job:{each}", "meta")
        found = await pipeline.execute()
    scores = dict(zip(ids, found[::2], strict=True))
    due = {call: int(scores[id_] * 1000) for call, id_ in of_call.items() if scores[id_]}
    # A dead letter may have been enqueued again with RQ's own tools.
    return due, [
        each for each, meta in zip(ids, found[1::2], strict=True) if b'"died"' not in (meta or b"")
    ]


def _job_id(name: str, event_id: bytes) -> str:
    return f"{name}-{re.sub(r'[^A-Za-z0-9_-]', '', event_id.decode())}"
