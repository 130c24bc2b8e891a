"""The index of calls: for each term of a call, a sorted set of calls by when they began.

`Calls.save` writes it with the calls.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from offhook.calls import from_state, terms
from offhook.event import tenant_of
from offhook.inbox import keys
from offhook.inbox.scripts import script
from offhook.inbox.stream import Inbox

_PAGE = 500


async def index_kept(inbox: Inbox, keep_days: Callable[[str], float]) -> int:
    """Put calls into the index that were kept before there was one.

    Args:
        keep_days: how long calls of a tenant are kept after their last event.

    Returns:
        How many calls were looked at; 0 once it was done.
    """
    looked = 0
    for partition in [*range(inbox.partitions), *await inbox.beyond()]:
        for tenant in await inbox.tenants(partition):
            if await inbox.redis.exists(keys.indexed(partition, tenant)):
                continue
            names: Any = await inbox.redis.zrange(keys.calls(partition, tenant), 0, -1)
            for at in range(0, len(names), _PAGE):
                page = names[at : at + _PAGE]
                await _index(inbox, partition, page, keep_days(tenant), tenant)
            looked += len(names)
            await inbox.redis.set(keys.indexed(partition, tenant), 1)
    return looked


async def erase(inbox: Inbox, partition: int, names: Iterable[str]) -> int:
    """Delete calls, with what the index knows of them. Returns how many there were."""
    names = list(names)
    erased = 0
    for at in range(0, len(names), _PAGE):
        page = names[at : at + _PAGE]
        stored = [keys.call(partition, name) for name in page]
        async with inbox.redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(*stored)
            values: Any = await inbox.redis.mget(stored)
            for name, value in zip(page, values, strict=True):
                tenant = tenant_of(name)
                pipeline.zrem(keys.calls(partition, tenant), name)
                for term in _terms(value) if value else ():
                    pipeline.zrem(keys.index(partition, term, tenant), name)
            erased += (await pipeline.execute())[0]
    return erased


async def _index(
    inbox: Inbox, partition: int, names: list[bytes], keep_days: float, tenant: str
) -> None:
    index_calls = inbox.redis.register_script(script("index_calls"))
    keep_ms = int(keep_days * 86_400_000)
    prefix = keys.call(partition, "")
    changed = True
    while changed:
        values: Any = await inbox.redis.mget([prefix.encode() + name for name in names])
        found = [(name, value) for name, value in zip(names, values, strict=True) if value]
        having: defaultdict[str, list[int]] = defaultdict(list)
        for number, (_, value) in enumerate(found, 1):
            for term in _terms(value):
                having[term].append(number)
        listed = (
            [name.decode() for name, _ in found],
            [(term, numbers, ()) for term, numbers in having.items()],
        )
        changed = await index_calls(
            keys=[keys.calls(partition, tenant)],
            args=[
                prefix,
                keys.index(partition, "", tenant),
                keep_ms,
                int(time.time() * 1000) - keep_ms,
                msgspec.json.encode(listed),
                *(value for _, value in found),
            ],
        )


def _terms(stored: bytes) -> list[str]:
    return sorted(terms(from_state(stored.split(b" ", 2)[2])))
