"""Moves an inbox back into the layout of the version before: the reverse of the migration.

That version had a consumer group for each handler and one for folding calls, tables of parked lanes
for each handler, and RQ jobs to redeliver. Streams, calls and parked events are the same. It had no
tenants: what is theirs stays as it is.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from offhook.call import CALL_LOG
from offhook.event import from_stored
from offhook.inbox import keys
from tests.offhook.inbox.earlier import redelivery_job

PARTITIONS = 16


def to_earlier_layout(redis: Any, rq: Any) -> None:
    """Move all partitions back. No worker may run; the receiver may.

    It takes each partition in one transaction, and may be repeated.

    Args:
        redis: a client that returns text.
        rq: one that returns bytes.
    """
    redis.delete(keys.APART)
    for partition in range(PARTITIONS):
        _move_back(redis, rq, partition)


def _move_back(redis: Any, rq: Any, partition: int) -> None:
    stream = keys.inbox(partition)
    shared = redis.hget(keys.read(partition), "")
    known = redis.hkeys(keys.known(partition))
    if not known:
        return
    records = redis.hgetall(keys.behind(partition))
    due: dict[str, float] = {}
    for key in redis.scan_iter(f"{keys.due(partition)}*"):
        due |= dict(redis.zrange(key, 0, -1, withscores=True))
    parked = {
        member: event_id
        for member, event_id in redis.hgetall(keys.parked(partition)).items()
        if member.partition(" ")[0] in known  # a tenant's stay
    }
    for member in parked:
        handler, _, call = member.partition(" ")
        head = redis.lindex(keys.lane(partition, handler, call), 0)
        if head is not None:  # else nothing is parked yet behind an event that was delivered
            job, queue = redelivery_job(rq, handler, from_stored(head.encode()))
            at = max(due.get(member, 0.0) / 1000, time.time())
            queue.schedule_job(job, datetime.fromtimestamp(at, UTC))
    pipeline = redis.pipeline(transaction=True)
    for handler in known:
        own, *pending = records.get(handler, "-").split(" ")
        position = (shared or "0-0") if own == "-" else own
        pipeline.xgroup_create(stream, handler, position, mkstream=True)
        for each in pending:
            pipeline.xclaim(stream, handler, "dispatch", 0, [each], force=True, justid=True)
    folded = redis.hget(keys.folded(partition), "") or "0-0"
    pipeline.xgroup_create(stream, CALL_LOG, folded, mkstream=True)
    attempts = redis.hgetall(keys.attempts(partition))
    prefix = keys.partition_prefix(partition)
    for member, event_id in parked.items():
        handler, _, call = member.partition(" ")
        pipeline.hset(f"{prefix}parked:{handler}", call, event_id)
        pipeline.hset(f"{prefix}attempts:{handler}", call, attempts.get(member, 0))
    pipeline.delete(*(name(partition) for name in (keys.known, keys.behind, keys.owners)))
    pipeline.hdel(keys.folded(partition), "")
    for name in (keys.parked, keys.attempts):
        pipeline.hdel(name(partition), *parked, "")

    def of_pools(name: Callable[[int], str]) -> list[str]:
        return [name(partition), *redis.scan_iter(f"{name(partition)}:*")]

    pipeline.delete(*of_pools(keys.flushed))
    for key in of_pools(keys.read):
        pipeline.hdel(key, "")
    for key in of_pools(keys.unfinished):
        pipeline.srem(key, "")
    for key in of_pools(keys.ready):
        pipeline.zrem(key, "", "*")
    for key in of_pools(keys.due):
        pipeline.zrem(key, *parked, "")
    for key in of_pools(keys.redelivering):
        pipeline.srem(key, *parked, "")
    pipeline.execute()
