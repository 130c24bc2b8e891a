"""The server's or our wall clock is set back by an hour: nothing waits for an hour.

See also serving/test_clock.py.
"""

import time
from datetime import UTC, datetime

import pytest
import redis as blocking

from offhook import queues
from offhook.connection import connect
from offhook.event import CallEvent, new_event_id, to_stored
from offhook.inbox import Inbox, keys
from offhook.inbox.handler_states import HandlerStates
from offhook.inbox.trimming import Trimming
from offhook.operations import dead_letters
from tests.events import batch_of, event

HOUR = 3600


@pytest.fixture
def client(redis_url: str) -> blocking.Redis:
    return blocking.Redis.from_url(redis_url)


async def test_expired_mark_is_not_a_repeat(redis_url: str, client: blocking.Redis) -> None:
    async with connect(redis_url) as redis:
        inbox = Inbox(redis, 1)
        for n in range(2):
            first, again = event("a", n), event("a", n)
            mark = f"says {n}"
            assert await inbox.append(batch_of(first, marks=[mark]), 5) == set()
            assert await inbox.append(batch_of(again, marks=[mark]), 5) == {0}
            _age(client, keys.seen(0, mark), n)
            # Their time of creation passes again: better a duplicate than a loss.
            assert await inbox.append(batch_of(again, marks=[mark]), 5) == set()


def _age(client: blocking.Redis, mark: str, n: int) -> None:
    """Change a mark as if the clock was set back by an hour, or by a day."""
    back = [HOUR, 24 * HOUR][n] * 1000
    made, left = int(client.get(mark) or 0), client.pttl(mark)
    assert abs(made - time.time() * 1000) < 60_000
    client.set(mark, made + back, px=left + back)


async def test_open_circuit_of_a_dead_server_is_not_reported_for_hours(
    redis_url: str, client: blocking.Redis
) -> None:
    async with connect(redis_url) as redis:
        inbox = Inbox(redis, 1)
        client.set(keys.circuit("crm"), "open", px=5000)
        assert await HandlerStates(inbox).circuit_open_for("crm")
        client.set(keys.circuit("crm"), "open", px=HOUR * 1000)
        assert await HandlerStates(inbox).circuit_open_for("crm") is None


async def test_full_server_deletes_events_from_the_future(
    redis_url: str, client: blocking.Redis
) -> None:
    read = ""
    for n in range(300):
        stored = to_stored(event("a", n))
        position = f"{int(time.time() + HOUR) * 1000}-{n + 1}"
        client.xadd(keys.inbox(0), {"e": stored, "n": n + 1}, id=position)
        read = position if n == 199 else read
    client.hset(keys.read(0), "", read)  # 200 are delivered and folded
    client.hset(keys.folded(0), "", read)

    async with connect(redis_url) as redis:
        inbox = Inbox(redis, 1)
        assert await Trimming(inbox).trim(0, datetime.now(UTC), ["crm"]) == 0
        assert await Trimming(inbox).trim(0, None, ["crm"]) >= 100
        assert await inbox.length(0) >= 100, "an undelivered event was deleted"


def test_dead_letters_of_a_call_keep_their_order(
    client: blocking.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time_ns()
    letters: list[CallEvent] = []
    for moment in (real, real - HOUR * 10**9, real - HOUR * 10**9 + 10**9):
        monkeypatch.setattr(time, "time_ns", lambda at=moment: at)
        letters.append(_with_id(event("a", len(letters)), new_event_id()))
    monkeypatch.undo()
    for one in letters:
        queues.bury(client, "crm", one, attempt=1, error="no", trace="no")
    assert [letter.event for letter in dead_letters.find(client)] == letters


def _with_id(one: CallEvent, event_id: str) -> CallEvent:
    return CallEvent.from_dict(one.as_dict() | {"id": event_id})
