"""The feed: where it begins."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from offhook.connection import connect
from offhook.inbox import Inbox, feed, keys
from offhook.inbox.positions import order_of
from tests.events import batch_of, event


async def test_an_event_of_the_first_moment_is_watched_and_not_counted_before(
    redis_url: str,
) -> None:
    async with connect(redis_url) as redis:
        inbox = Inbox(redis, 1)
        await inbox.append(batch_of(event("a", 1)), 0)
        found: Any = await redis.xrange(keys.inbox(0))
        [(position, _)] = found
        moment = datetime.fromtimestamp(order_of(position)[0] / 1000, UTC)
        watching: Any = feed.watch_events(inbox, since=moment)
        assert (await asyncio.wait_for(anext(watching), 30)).call_id == "a"
        await watching.aclose()
        hour = timedelta(hours=1)
        assert [_ async for _ in feed.received_since(inbox, moment - hour, 9, until=moment)] == []
        assert len([_ async for _ in feed.received_since(inbox, moment - hour, 9)]) == 1
