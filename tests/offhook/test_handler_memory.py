"""What a handler remembers, on a real server and in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from offhook import TemporaryError, handler_memory
from offhook.connection import connect
from offhook.handler_memory import LocalMemory, Memory, RedisMemory


@asynccontextmanager
async def opened(kind: str, url: str, handler: str = "crm") -> AsyncIterator[Memory]:
    if kind == "local":
        yield LocalMemory()
        return
    async with connect(url) as redis:
        yield RedisMemory(redis, handler)


kinds = pytest.mark.parametrize("kind", ["local", "redis"])


@kinds
def test_what_was_remembered_is_there_until_it_expires_or_is_forgotten(
    kind: str, redis_url: str
) -> None:
    async def go() -> None:
        async with opened(kind, redis_url) as notes:
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

    asyncio.run(go())


@kinds
def test_of_all_that_want_a_lock_one_has_it(kind: str, redis_url: str) -> None:
    async def go() -> None:
        async with opened(kind, redis_url) as notes:

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

    asyncio.run(go())


def test_a_handler_has_what_it_remembered_in_every_process_and_no_other_s(redis_url: str) -> None:
    async def go() -> None:
        async with opened("redis", redis_url) as notes:
            await notes.set("jane", "1", 60)
        async with opened("redis", redis_url) as again:
            assert await again.get("jane") == "1"
        async with opened("redis", redis_url, "wallboard") as other:
            assert await other.get("jane") is None
        async with connect(redis_url) as redis:
            assert 0 < await redis.ttl("offhook:memory:crm:jane") <= 60

    asyncio.run(go())


def test_a_lock_that_another_one_holds_for_too_long_is_a_temporary_error(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler_memory, "_WAIT", 0.05)

    async def go() -> None:
        async with opened("redis", redis_url) as notes, notes.lock("one"):
            with pytest.raises(TemporaryError, match="holds 'one' for too long"):
                async with notes.lock("one"):
                    pytest.fail("both have it")

    asyncio.run(go())


def test_a_lock_whose_holder_died_is_free_after_a_while(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler_memory, "_HELD", 0.1)

    async def go() -> None:
        async with opened("redis", redis_url) as notes:

            async def hold() -> None:
                async with (
                    notes.lock("one"),
                    opened("redis", redis_url) as other,
                    other.lock("one"),
                ):
                    pass

            with pytest.raises(TemporaryError, match="so long that it lost 'one'"):
                await hold()

    asyncio.run(go())


def test_a_server_that_is_away_is_a_temporary_error() -> None:
    async def go() -> None:
        async with connect("redis://127.0.0.1:1", tries=0) as redis:
            notes = RedisMemory(redis, "crm")
            for turn in (notes.get("a"), notes.set("a", "b", 1), notes.delete("a")):
                with pytest.raises(TemporaryError, match="Redis does not answer"):
                    await turn
            with pytest.raises(TemporaryError, match="Redis does not answer"):
                async with notes.lock("a"):
                    pytest.fail("nobody gave it")

    asyncio.run(go())
