"""The scheduled job that reconciles calls."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis as blocking
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from offhook import queues
from offhook.connection import connect
from offhook.inbox import Inbox
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.offhook.sandbox import sandbox
from tests.workers.reconcile.reconciling import configuration
from unifiedapi import client
from workers.reconcile.job import reconcile_all
from workers.reconcile.reconciliation import Reconciliation
from workers.scheduler import Scheduler

NOBODY = '[pbx.away]\nhost = "https://127.0.0.1:1"\ntoken = "abcdefghij"\nzone = "UTC"\n'
BY_HAND = '[pbx.office]\ndialect = "telphin"\n'
JOB = "workers.reconcile.job.reconcile"


def test_unreachable_pbx_is_logged_and_does_not_affect_others(
    configure: Configure,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    with blocking.Redis.from_url(redis_url) as redis:
        redis.hset("offhook:reconciled:away", "until", before)
    monkeypatch.setattr(client.UnifiedApi.__init__, "__kwdefaults__", _without_repeats())
    with sandbox() as pbx:
        configure(NOBODY + BY_HAND + configuration(pbx))
        with caplog.at_level(logging.ERROR, "offhook"):
            asyncio.run(reconcile_all(load_settings()))
    [said] = caplog.messages
    assert said.startswith("calls of away not compared, will retry: ")
    with blocking.Redis.from_url(redis_url) as redis:
        assert redis.exists("offhook:reconciled:main")
        assert redis.hgetall("offhook:reconciled:away") == {b"until": before.encode()}


def test_job_catches_up_step_by_step(
    configure: Configure, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def are_folded(self: Reconciliation, until: datetime, tenant: str) -> None:
        """Do not look at how long the server has run."""

    monkeypatch.setattr(Reconciliation, "_wait_for_calls", are_folded)
    before = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    with sandbox() as pbx, blocking.Redis.from_url(redis_url) as redis:
        redis.hset("offhook:reconciled:main", "until", before)
        configure(configuration(pbx))
        asyncio.run(reconcile_all(load_settings()))
        until: Any = redis.hget("offhook:reconciled:main", "until")
    assert datetime.fromisoformat(until.decode()) > datetime.now(UTC) - timedelta(minutes=11)


def test_configuration_error_is_not_announced_as_a_retry(
    configure: Configure, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    with sandbox() as pbx, blocking.Redis.from_url(redis_url) as redis:
        redis.hset("offhook:reconciled:main", "until", before)
        configure(configuration(pbx).replace("zone = 'UTC'", ""))
        with caplog.at_level(logging.ERROR, "offhook"):
            asyncio.run(reconcile_all(load_settings()))
    [said] = caplog.messages
    assert said.startswith("cannot compare the calls of main: pbx.main.zone: is not set, ")


def _without_repeats() -> dict[str, object]:
    return {**(client.UnifiedApi.__init__.__kwdefaults__ or {}), "waits": ()}


def test_scheduler_enqueues_the_job_hourly_if_a_pbx_has_an_api(
    configure: Configure, redis_url: str
) -> None:
    with blocking.Redis.from_url(redis_url) as redis, sandbox() as pbx:
        target = queues.queue(queues.SCHEDULED, redis)

        async def turn() -> list[str]:
            async with connect(redis_url) as there:
                settings = load_settings()
                scheduler = Scheduler(settings, Inbox(there, 1), redis)
                await scheduler.round_of_jobs()
                await scheduler.round_of_jobs()
            return [str(job.func_name) for job in target.jobs]

        configure(BY_HAND)
        assert JOB not in asyncio.run(turn())
        configure(configuration(pbx))
        assert asyncio.run(turn()).count(JOB) == 1
        redis.delete(f"offhook:scheduled:{JOB}")  # an hour passes without a worker
        assert asyncio.run(turn()).count(JOB) == 1
        worker = SimpleWorker([target], connection=redis, serializer=JSONSerializer)
        worker.work(burst=True, logging_level="CRITICAL")
        assert redis.exists("offhook:reconciled:main")
        assert not target.jobs
