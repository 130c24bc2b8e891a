"""The scheduler on a server that is full."""

from collections.abc import Iterator

import pytest
import redis as blocking
from redis.exceptions import RedisError

from offhook.connection import connect
from offhook.inbox import Cursor, Inbox
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import batch_of, event
from workers.scheduler import Scheduler


@pytest.fixture
def client(redis_url: str) -> Iterator[blocking.Redis]:
    with blocking.Redis.from_url(redis_url) as client:
        yield client
        client.config_set("maxmemory", 0)


async def test_scheduler_makes_room_on_a_full_server(
    redis_url: str, client: blocking.Redis, configure: Configure
) -> None:
    configure('[handlers.crm]\nuse = "console"\n')

    async with connect(redis_url) as redis:
        inbox = Inbox(redis, 1)
        for name in load_settings().cursors:
            await inbox.ensure_cursor(name, "earliest")
        await inbox.append(batch_of(*(event("a", n) for n in range(1000))), [], 0)
        for name in load_settings().cursors:
            cursor = Cursor(inbox, name, 0)
            await cursor.take()
            read = await cursor.read(900, 1)
            await cursor.acknowledge([entry.position for entry in read], 900)
        client.config_set("maxmemory", 1)
        with pytest.raises(RedisError, match="maxmemory"):
            await Scheduler(load_settings(), inbox, client).round()
        assert 100 <= await inbox.length(0) < 300
