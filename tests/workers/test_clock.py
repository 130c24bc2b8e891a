"""The server's or our wall clock is set back by an hour: nothing waits for an hour."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis as blocking
from rq.scheduler import RQScheduler

from offhook import queues
from offhook.connection import connect
from offhook.event import CallEvent, new_event_id, to_stored
from offhook.inbox import LEASE_MS, Cursor, Inbox
from offhook.operations import dead_letters
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import batch_of, event
from tests.workers.test_redeliver import Bench, handler
from workers import scheduler as module
from workers.scheduler import Scheduler

HOUR = 3600
AWAKE = "offhook:{0}:awake:crm"
STREAM = "offhook:{0}:inbox"


@pytest.fixture
def client(redis_url: str) -> blocking.Redis:
    return blocking.Redis.from_url(redis_url)


@asynccontextmanager
async def opened_inbox(url: str) -> AsyncIterator[Inbox]:
    async with connect(url) as client:
        inbox = Inbox(client, 1)
        await inbox.ensure_cursor("crm", "earliest")
        yield inbox


# The server's clock: keys expire an hour late


@pytest.mark.parametrize("by", ["the next dispatch", "the sweep"])
async def test_lease_of_a_dead_dispatch_expires(
    redis_url: str, client: blocking.Redis, by: str
) -> None:
    client.set(AWAKE, "elsewhere/1/dead", px=HOUR * 1000 + LEASE_MS)

    async with opened_inbox(redis_url) as inbox:
        if by == "the sweep":
            assert not await inbox.behind("crm", 0)
        else:
            assert 0 < await Cursor(inbox, "crm", 0).take() <= LEASE_MS / 1000
    assert 0 < client.pttl(AWAKE) <= LEASE_MS


async def test_expired_mark_is_not_a_repeat(redis_url: str, client: blocking.Redis) -> None:
    async with opened_inbox(redis_url) as inbox:
        for n in range(2):
            first, again = event("a", n), event("a", n)
            mark = f"says {n}"
            assert (await inbox.append(batch_of(first, marks=[mark]), [], 5))[0] == set()
            assert (await inbox.append(batch_of(again, marks=[mark]), [], 5))[0] == {0}
            _age(client, f"offhook:{{0}}:seen:{mark}", n)
            # Their time of creation passes again: better a duplicate than a loss.
            assert (await inbox.append(batch_of(again, marks=[mark]), [], 5))[0] == set()


def _age(client: blocking.Redis, mark: str, n: int) -> None:
    """Change a mark as if the clock was set back by an hour, or by a day."""
    back = [HOUR, 24 * HOUR][n] * 1000
    made, left = int(client.get(mark) or 0), client.pttl(mark)
    assert abs(made - time.time() * 1000) < 2000
    client.set(mark, made + back, px=left + back)


def test_open_circuit_probes(bench: Bench, configure: Configure) -> None:
    configure(handler("record"))
    bench.park(event("a", 0))
    bench.rq.set("offhook:{0}:circuit:crm", "open", px=HOUR * 1000)
    bench.work()
    assert bench.got() == ["0"]

    async def test(inbox: Inbox) -> None:
        assert await Cursor(inbox, "crm", 0).circuit_open_for() == 0
        assert (await inbox.state("crm", 0)).circuit_open is None

    bench.with_inbox(test)


async def test_full_server_deletes_events_from_the_future(
    redis_url: str, client: blocking.Redis
) -> None:
    for n in range(300):
        stored = to_stored(event("a", n))
        position = f"{int(time.time() + HOUR) * 1000}-{n + 1}"
        client.xadd(STREAM, {"e": stored, "n": n + 1}, id=position)

    async with opened_inbox(redis_url) as inbox:
        cursor = Cursor(inbox, "crm", 0)
        await cursor.take()
        read = await cursor.read(200, 1)
        await cursor.acknowledge([entry.position for entry in read], 200)
        assert await inbox.trim(0, datetime.now(UTC), ["crm"]) == 0
        assert await inbox.trim(0, None, ["crm"]) >= 100
        assert await inbox.length(0) >= 100, "an undelivered event was deleted"


def test_locks_of_a_dead_scheduler_expire(bench: Bench, configure: Configure) -> None:
    configure(handler("record"))
    lock = RQScheduler.get_locking_key(queues.redeliver_queue("crm"))
    bench.rq.set(lock, "a dead one", ex=HOUR)
    bench.schedule()
    assert bench.rq.get(lock) == b"a dead one"
    left = bench.rq.pttl(lock)
    assert 0 < left <= module.LOCKED_FOR * 1000
    time.sleep(0.01)
    bench.schedule()
    assert bench.rq.pttl(lock) < left, "a check extended the lock"


# Our clock: due times are an hour late


def test_redelivery_is_made_when_it_was_due(
    bench: Bench, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(handler("record"))
    one = event("a", 0)
    bench.park(one, enqueue=False)
    queues.redeliver(
        bench.rq, "crm", one, delay=HOUR + 5
    )  # in the time after the clock is set back
    now = module._clock()

    async def go(inbox: Inbox) -> None:
        scheduler = Scheduler(load_settings(), inbox, bench.rq)
        await scheduler.round()
        assert bench.scheduled(), "moved before the clock was set back"
        monkeypatch.setattr(module, "_clock", lambda: now - HOUR)
        for _ in range(2):  # the clock is not set back again
            await scheduler.round()
            [(_, due)] = _due(bench)
            left = due - time.time()
            assert 0 <= left <= 6
        await asyncio.sleep(left + 0.5)
        await scheduler.round()
        scheduler.release()

    bench.with_inbox(go)
    bench.work()
    assert bench.got() == ["0"]


def test_slow_clock_changes_nothing(
    bench: Bench, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(handler("record"))
    queues.redeliver(bench.rq, "crm", event("a", 0), delay=HOUR)
    now = module._clock()
    before = _due(bench)

    async def go(inbox: Inbox) -> None:
        scheduler = Scheduler(load_settings(), inbox, bench.rq)
        for rounds in range(8):
            monkeypatch.setattr(module, "_clock", lambda n=rounds: now - n)
            await scheduler.round()
        scheduler.release()

    bench.with_inbox(go)
    assert _due(bench) == before


def _due(bench: Bench) -> list[tuple[bytes, float]]:
    found: Any = bench.rq.zrange(
        f"rq:scheduled:{queues.redeliver_queue('crm')}", 0, -1, withscores=True
    )
    return list(found)


def test_redelivery_of_a_dead_worker_does_not_count_as_running(
    bench: Bench, configure: Configure
) -> None:
    configure(handler("record"))
    one = event("a", 0)
    bench.park(one, enqueue=False)
    job = queues.redelivery_id("crm", one.id)
    started = queues.queue(queues.redeliver_queue("crm"), bench.rq).started_job_registry.key
    bench.rq.zadd(started, {f"{job}:dead": time.time() + HOUR})  # in the time of its worker
    bench.schedule(rounds=2)
    bench.work()
    assert bench.got() == ["0"]


@pytest.mark.parametrize("left", [4, HOUR])
def test_running_redelivery_is_known_by_its_heartbeat(
    bench: Bench, configure: Configure, left: int
) -> None:
    configure(handler("record"))
    job = queues.redelivery_id("crm", event("a", 0).id)
    started = queues.queue(queues.redeliver_queue("crm"), bench.rq).started_job_registry.key
    bench.rq.zadd(started, {f"{job}:alive": time.time() - HOUR})  # its worker's clock is behind
    bench.rq.hset(f"rq:execution:{job}:alive", "id", "alive")
    bench.rq.expire(f"rq:execution:{job}:alive", left)
    # A TTL of an hour is from before the server's clock was set back.
    assert queues.redeliveries(bench.rq, "crm") == ({job} if left == 4 else set())


def test_dead_letters_of_a_call_keep_their_order(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time_ns()
    letters: list[CallEvent] = []
    for moment in (real, real - HOUR * 10**9, real - HOUR * 10**9 + 10**9):
        monkeypatch.setattr(time, "time_ns", lambda at=moment: at)
        letters.append(_with_id(event("a", len(letters)), new_event_id()))
    monkeypatch.undo()
    for one in letters:
        queues.bury(bench.rq, "crm", one, attempt=1, error="no", trace="no")
    assert [letter.event for letter in dead_letters.find(bench.rq)] == letters


def _with_id(one: CallEvent, event_id: str) -> CallEvent:
    return CallEvent.from_dict(one.as_dict() | {"id": event_id})


@pytest.fixture
def bench(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("RECORDINGS", str(tmp_path))
    return Bench(redis_url, tmp_path)
