"""The servers behind a client: one, or the primaries of a cluster."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis

from offhook.redis_servers.client import Cluster
from offhook.redis_servers.slots import Address, slot_of_key

T = TypeVar("T")

_AT_ONCE = 100  # commands


async def servers(redis: Redis) -> list[Redis]:
    """A client of each server that has keys."""
    return await redis.nodes.primaries() if isinstance(redis, Cluster) else [redis]


def grouped(redis: Redis, items: Iterable[T], key: Callable[[T], str]) -> list[list[T]]:
    """Divide things by the server that their keys are on, as far as that is known."""
    found: dict[Address | None, list[T]] = {}
    for item in items:
        address = (
            redis.nodes.address(slot_of_key(key(item))) if isinstance(redis, Cluster) else None
        )
        found.setdefault(address, []).append(item)
    return list(found.values())


async def answers(redis: Redis, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """The answers to many commands, a hundred at a time, so that others get answers in between."""
    found: list[Any] = []
    for at in range(0, len(commands), _AT_ONCE):
        async with redis.pipeline(transaction=False) as pipeline:
            for command in commands[at : at + _AT_ONCE]:
                pipeline.execute_command(*command)
            found += await pipeline.execute()
    return found


async def infos(redis: Redis, section: str) -> list[dict[str, Any]]:
    """A section of INFO of each server that has keys."""
    return [await server.info(section) for server in await servers(redis)]


async def memory_used(redis: Redis) -> float:
    """The part of `maxmemory` that the server, or the fullest primary, uses; 0 without a limit."""
    used, most = await memory(redis)
    return used / most if most else 0.0


async def memory(redis: Redis) -> tuple[int, int]:
    """The bytes that the server uses, and its `maxmemory`; in a cluster, of the fullest primary."""
    found = [
        (int(each["used_memory"]), int(each.get("maxmemory", 0)))
        for each in await infos(redis, "memory")
    ]
    return max(found, key=lambda each: each[0] / each[1] if each[1] else 0.0)
