"""What a storm moves back into the layout of the version before is taken over as it was."""

from typing import Any

import redis as blocking

from offhook.connection import connect
from offhook.inbox import keys
from offhook.inbox.migration import migrate
from offhook.inbox.partition import Partition
from offhook.inbox.stream_state import StreamState
from tests.chaos.earlier_layout import to_earlier_layout
from tests.offhook.inbox.earlier import EarlierInbox


async def test_an_inbox_that_was_moved_back_is_taken_over_as_it_was(redis_url: str) -> None:
    with (
        blocking.Redis.from_url(redis_url) as rq,
        blocking.Redis.from_url(redis_url, decode_responses=True) as text,
    ):
        EarlierInbox(rq)
        before = await _taken_over(redis_url, rq)
        to_earlier_layout(text, rq)
        groups = {each["name"] for each in text.xinfo_groups(keys.inbox(0))}
        assert groups == {"crm", "log", "calls"}
        assert await _taken_over(redis_url, rq) == before


async def _taken_over(redis_url: str, rq: Any) -> tuple[StreamState, object]:
    """Return where the handlers are, and the parked lanes."""
    async with connect(redis_url) as client:
        await migrate(client, 0)
        [state] = await Partition(client, client, 0).load([""])
    parked = (
        rq.hgetall(keys.parked(0)),
        rq.hgetall(keys.attempts(0)),
        rq.zrange(keys.due(0), 0, -1, withscores=True),
        rq.keys("rq:job:*"),
    )
    return state, parked
