"""Dead letters and refused callbacks go when they were kept for long enough."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis as blocking

from offhook import queues
from offhook.inbox import keys
from offhook.operations import dead_letters
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import event
from workers.retention import delete_expired
from workers.scheduler import JOBS

NOW = datetime.now(UTC)


@pytest.fixture
def redis(redis_url: str) -> blocking.Redis:
    return blocking.Redis.from_url(redis_url)


def bury(rq: blocking.Redis, handler: str, number: int, ago: timedelta) -> str:
    made = event("call", number)
    queues.bury(rq, handler, made, attempt=1, error="answered 410", trace="Trace: x")
    [letter] = [each for each in dead_letters.find(rq) if each.event.id == made.id]
    job = queues.queue(queues.dead_queue(handler), rq).fetch_job(letter.id)
    assert job is not None
    job.meta["died"] = (NOW - ago).isoformat()
    job.save_meta()  # type: ignore[no-untyped-call]
    return letter.id


def refuse(redis: blocking.Redis, ago: timedelta) -> Any:
    position = int((NOW - ago).timestamp() * 1000)
    made: Any = redis.xadd(keys.quarantine(), {"code": "x"}, id=f"{position}-0")
    return made


def test_what_is_older_than_its_setting_is_deleted_and_nothing_else(
    redis: blocking.Redis, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    configure(dead_letter_days=90, quarantine_days=30)
    bury(redis, "crm", 1, timedelta(days=91))
    bury(redis, "gone", 2, timedelta(days=400))  # no longer configured
    young = bury(redis, "crm", 3, timedelta(days=89))
    refuse(redis, timedelta(days=31))
    kept = refuse(redis, timedelta(days=29))
    with caplog.at_level(logging.INFO, "offhook"):
        delete_expired()
    assert [letter.id for letter in dead_letters.find(redis)] == [young]
    left: Any = redis.xrange(keys.quarantine())
    assert [position for position, _ in left] == [kept]
    assert "deleted 1 dead letters of crm older than dead_letter_days (90)" in caplog.text
    assert "deleted 1 dead letters of gone" in caplog.text
    assert "deleted 1 refused callbacks older than quarantine_days (30)" in caplog.text
    caplog.clear()
    delete_expired()
    assert caplog.text == ""
    redis.close()


def test_the_scheduler_calls_the_job_in_every_installation(configure: Configure) -> None:
    configure()
    [(_, every, needed)] = [each for each in JOBS if each[0] == "workers.retention.delete_expired"]
    assert needed(load_settings())
    assert every <= 86_400
