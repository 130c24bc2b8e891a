"""The scheduler: on a server that is full, and the positions that it looks after."""

import asyncio
from collections.abc import Iterator

import pytest
import redis as blocking
from redis.exceptions import RedisError

from offhook import queues
from offhook.connection import connect
from offhook.inbox import Inbox, keys
from offhook.operations import dead_letters
from offhook.operations.dead_letters import Filter
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import batch_of, event
from tests.workers.folded import fold
from workers.scheduler import Scheduler


@pytest.fixture
def client(redis_url: str) -> Iterator[blocking.Redis]:
    with blocking.Redis.from_url(redis_url) as client:
        yield client
        client.config_set("maxmemory", 0)


def test_scheduler_makes_room_on_a_full_server(
    redis_url: str, client: blocking.Redis, configure: Configure
) -> None:
    configure("", partitions=1)
    asyncio.run(_append(redis_url, 900))
    fold(load_settings())
    configure('[handlers.crm]\nuse = "console"\n', partitions=1)

    async def go() -> None:
        async with connect(redis_url) as redis:
            inbox = Inbox(redis, 1)
            await inbox.register(load_settings().starts)
            await inbox.append(batch_of(*(event("a", n) for n in range(100))), 0)
            before = await inbox.length(0)
            client.config_set("maxmemory", 1)
            with pytest.raises(RedisError, match="maxmemory"):
                await Scheduler(load_settings(), inbox, client).round()
            assert before > 1000
            assert 100 <= await inbox.length(0) < 300, "an undelivered event was deleted"

    asyncio.run(go())


def test_scheduler_reads_no_positions_unless_some_are_missing(
    redis_url: str, client: blocking.Redis, configure: Configure
) -> None:
    configure('[handlers.crm]\nuse = "console"\n', partitions=2)

    async def go() -> None:
        async with connect(redis_url) as redis:
            inbox = Inbox(redis, 2)
            scheduler = Scheduler(load_settings(), inbox, client)
            await scheduler.round()
            assert await inbox.known() == {"crm"}
            client.config_resetstat()
            await scheduler.round()
            assert "cmdstat_hkeys" not in client.info("commandstats")
            client.delete(keys.known(1))
            await scheduler.round()
            assert client.hkeys(keys.known(1)) == [b"crm"]

    asyncio.run(go())


def test_scheduler_asks_for_the_requeued_letters_of_all_handlers_at_once(
    redis_url: str, client: blocking.Redis, configure: Configure
) -> None:
    handlers = "".join(f'[handlers.h{n}]\nuse = "console"\n' for n in range(20))
    configure(handlers, partitions=1)
    settings = load_settings()

    async def go() -> None:
        async with connect(redis_url) as redis:
            inbox = Inbox(redis, 1)
            await inbox.register(settings.starts)
            queues.bury(client, "h7", event("a", 1), attempt=3, error="answered 410", trace="")
            [letter] = dead_letters.find(client, Filter())
            queues.dead_registry(client, "h7").requeue(letter.id)
            client.config_resetstat()
            await Scheduler(settings, inbox, client).rejoin_requeued()
            assert client.info("commandstats")["cmdstat_lrange"]["calls"] == 1
            assert queues.requeued(client, "h7") == []
            assert client.zscore(keys.due(0), "h7 main/a") is not None

    asyncio.run(go())


async def _append(url: str, count: int) -> None:
    async with connect(url) as redis:
        await Inbox(redis, 1).append(batch_of(*(event("a", n) for n in range(count))), 0)
