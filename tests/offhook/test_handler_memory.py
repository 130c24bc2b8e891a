"""A handler's memory, on a real server and in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from offhook import TemporaryError
from offhook.connection import connect
from offhook.handler_memory import LocalMemory, Memory
from workers.delivery.redis_memory import RedisMemory


@asynccontextmanager
async def memory(
    kind: str, url: str, handler: str = "crm", **times: float
) -> AsyncIterator[Memory]:
    if kind == "local":
        yield LocalMemory()
        return
    async with connect(url) as redis:
        yield RedisMemory(redis, handler, **times)


kinds = pytest.mark.parametrize("kind", ["local", "redis"])


@kinds
async def test_a_value_is_kept_until_it_expires_or_is_deleted(kind: str, redis_url: str) -> None:
    async with memory(kind, redis_url) as notes:
        assert await notes.get("jane") is None
        await notes.set("jane", "Zürich", 60)
        await notes.set("john", "Łódź", 0.05)
        assert await notes.get("jane") == "Zürich"
        await asyncio.sleep(0.1)
        assert await notes.get("john") is None
        await notes.set("jane", "", 60)
        assert await notes.get("jane") == ""
        await notes.delete("jane")
        await notes.delete("nobody")
        assert await notes.get("jane") is None


@kinds
async def test_a_lock_is_exclusive(kind: str, redis_url: str) -> None:
    async with memory(kind, redis_url) as notes:

        async def count() -> None:
            async with notes.lock("sum"):
                before = int(await notes.get("sum") or 0)
                await asyncio.sleep(0.01)
                await notes.set("sum", str(before + 1), 60)

        await asyncio.gather(*(count() for _ in range(10)))
        assert await notes.get("sum") == "10"
        async with notes.lock("one"), notes.lock("another"):
            pass
        with pytest.raises(ZeroDivisionError):
            async with notes.lock("one"):
                raise ZeroDivisionError
        async with notes.lock("one"):
            pass


async def test_all_processes_share_a_handlers_memory(redis_url: str) -> None:
    async with memory("redis", redis_url) as notes:
        await notes.set("jane", "1", 60)
    async with memory("redis", redis_url) as again:
        assert await again.get("jane") == "1"
    async with memory("redis", redis_url, "wallboard") as other:
        assert await other.get("jane") is None
    async with connect(redis_url) as redis:
        assert 0 < await redis.ttl("offhook:memory:crm:jane") <= 60


async def test_a_lock_held_too_long_is_a_temporary_error(redis_url: str) -> None:
    async with memory("redis", redis_url, wait=0.05) as notes, notes.lock("one"):
        with pytest.raises(TemporaryError, match="has held the lock 'one' too long"):
            async with notes.lock("one"):
                pytest.fail("two deliveries have the lock")


async def test_a_lock_expires(redis_url: str) -> None:
    async def hold() -> None:
        async with (
            memory("redis", redis_url, held=0.1) as notes,
            notes.lock("one"),
            memory("redis", redis_url) as other,
            other.lock("one"),
        ):
            pass

    with pytest.raises(TemporaryError, match="held the lock 'one' until it expired"):
        await hold()


async def test_an_unreachable_server_is_a_temporary_error() -> None:
    async with connect("redis://127.0.0.1:1", tries=0) as redis:
        notes = RedisMemory(redis, "crm")
        for turn in (notes.get("a"), notes.set("a", "b", 1), notes.delete("a")):
            with pytest.raises(TemporaryError, match="Redis does not answer"):
                await turn
        with pytest.raises(TemporaryError, match="Redis does not answer"):
            async with notes.lock("a"):
                pytest.fail("there is no server")
