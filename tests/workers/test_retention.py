"""Dead letters and refused callbacks go when they were kept for long enough."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis as blocking

from offhook import queues
from offhook.inbox import keys
from offhook.operations import dead_letters
from offhook.operations.dead_letters import Filter
from offhook.settings import load_settings, tenant_of_plugin
from tests.conftest import Configure
from tests.events import event
from workers.retention import delete_expired
from workers.scheduler import JOBS

NOW = datetime.now(UTC)


@pytest.fixture
def redis(redis_url: str) -> blocking.Redis:
    return blocking.Redis.from_url(redis_url)


def bury(rq: blocking.Redis, handler: str, number: int, ago: timedelta, tenant: str = "") -> str:
    made = event("call", number, tenant=tenant)
    queues.bury(rq, handler, made, attempt=1, error="answered 410", trace="Trace: x")
    [letter] = [each for each in dead_letters.find(rq) if each.event.id == made.id]
    job = queues.queue(queues.dead_queue(handler), rq).fetch_job(letter.id)
    assert job is not None
    job.meta["died"] = (NOW - ago).isoformat()
    job.save_meta()  # type: ignore[no-untyped-call]
    return letter.id


def refuse(redis: blocking.Redis, ago: timedelta, tenant: str = "") -> Any:
    position = int((NOW - ago).timestamp() * 1000)
    made: Any = redis.xadd(keys.quarantine(tenant), {"code": "x"}, id=f"{position}-0")
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


def test_each_tenant_has_its_own_retention(
    redis: blocking.Redis, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    configure(
        '[tenants]\nrest.extensions = ["main/0005**"]\n'
        '[tenants.short]\nextensions = ["main/0003**"]\n'
        "dead_letter_days = 2\nquarantine_days = 1\n"
        '[tenants.long]\nextensions = ["main/0004**"]\n'
        "dead_letter_days = 90\nquarantine_days = 60\n",
        dead_letter_days=10,
        quarantine_days=10,
    )
    # Each of the operator's handler `crm` is of a tenant's event.
    handlers = ("crm", "short/crm", "long/crm", "rest/crm", "gone/crm")
    ages = [timedelta(days=1.5), timedelta(days=5), timedelta(days=30), timedelta(days=100)]
    number = 0
    for handler in handlers:
        for ago in ages:
            bury(redis, handler, number := number + 1, ago, tenant_of_plugin(handler) or "long")
    for tenant in ("", "short", "long", "rest"):
        for ago in ages[::-1]:
            refuse(redis, ago, tenant)
    with caplog.at_level(logging.INFO, "offhook"):
        delete_expired()
    left = {name: sum(1 for _ in dead_letters.heads(redis, Filter(name))) for name in handlers}
    assert left == {"crm": 2, "short/crm": 1, "long/crm": 3, "rest/crm": 2, "gone/crm": 2}
    refused = [redis.xlen(keys.quarantine(t)) for t in ("", "short", "long", "rest")]
    assert refused == [2, 0, 3, 2]
    assert "deleted 3 dead letters of short/crm older than dead_letter_days (2)" in caplog.text
    assert "deleted 4 refused callbacks of short older than quarantine_days (1)" in caplog.text
    redis.close()


def test_the_scheduler_calls_the_job_in_every_installation(configure: Configure) -> None:
    configure()
    [(_, every, needed)] = [each for each in JOBS if each[0] == "workers.retention.delete_expired"]
    assert needed(load_settings())
    assert every <= 86_400
