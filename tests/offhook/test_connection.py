"""Connections to Redis, directly and through Sentinels."""

from typing import Any

from offhook.connection import connect, connect_rq, opened
from offhook.inbox import keys
from offhook.settings import Settings
from tests.conftest import SECRET
from tests.receiver.storing import until

URL = "sentinel://one:26380,two,[::1]:26381/inbox/2?password=s%40cret&sentinel_password=other"


def test_sentinels_are_asked_for_the_primary() -> None:
    for client in (connect(URL), connect_rq(URL)):
        pool: Any = client.connection_pool
        assert pool.service_name == "inbox"
        kwargs = pool.connection_kwargs
        assert (kwargs["db"], kwargs["password"]) == (2, "s@cret")
        asked = [sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels]
        found = [(each.connection_kwargs["host"], each.connection_kwargs["port"]) for each in asked]
        assert found == [("one", 26380), ("two", 26379), ("::1", 26381)]
        assert {each.connection_kwargs["password"] for each in asked} == {"other"}


def test_a_caller_may_wait_for_less_time() -> None:
    for url in (URL, "redis://localhost/0"):
        kwargs = connect_rq(url, timeout=0.3).connection_pool.connection_kwargs
        assert (kwargs["socket_timeout"], kwargs["socket_connect_timeout"]) == (0.3, 0.3)


async def test_both_clients_are_closed(redis_url: str) -> None:
    settings = Settings(secret=SECRET, redis_url=redis_url, partitions=3)  # type: ignore[arg-type]
    with connect_rq(redis_url) as observer:
        before = int(observer.client_id())

        def connected() -> int:
            listed: Any = observer.client_list()
            return sum(int(each["id"]) > before for each in listed)  # not an earlier test's

        async with opened(settings) as (inbox, rq):
            assert (inbox.partitions, await inbox.redis.xlen(keys.quarantine())) == (3, 0)
            assert rq.ping()
            await until(lambda: connected() == 2)
        await until(lambda: connected() == 0)
