"""Callbacks are lost between the PBX and the receiver, and reconciliation repairs their calls."""

import asyncio
import json
import multiprocessing
import random
import subprocess
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from offhook import CallEvent, EventType
from offhook.connection import connect
from offhook.http.callbacks import callbacks
from offhook.inbox import Inbox
from offhook.provisioning.api import open_api
from offhook.settings import load_settings
from tests.installation import OFFHOOK, Installation, wait_until
from tests.unifiedapi.serving import serve
from unifiedapi.sandbox.control import create_exchange
from unifiedapi.sandbox.scenarios import Scenario
from unifiedapi.sandbox.store import Store
from workers.reconcile.reconciliation import Reconciled, Reconciliation

HANDLERS = """
[handlers.crm]
use = "tests.recorders:record_whole"
events = ["calls"]
[pbx.main]
host = "{url}"
token = "sandbox-token"
insecure = true
zone = "Europe/Berlin"
"""
PHONES = ["0003*210", "0003*211", "0003*212", "0003*213"]


async def reconcile(young: timedelta = timedelta()) -> Reconciled:
    settings = load_settings()
    redis = connect(settings.redis_url)
    try:
        async with open_api(settings, "main") as api:
            inbox = Inbox(redis, settings.partitions)
            work = Reconciliation(settings, "main", api, inbox, young)
            return await work.since(datetime.now(UTC) - timedelta(hours=1))
    finally:
        await redis.aclose()


def run_and_be_killed(after: float) -> None:
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=lambda: asyncio.run(reconcile()))
    process.start()
    process.join(after)
    process.kill()
    process.join()


def place(url: str, scenario: str, drop: str, seed: int) -> None:
    order = {"scenario": scenario, "drop": drop, "seed": seed, "speed": 100, "phones": PHONES}
    assert httpx.post(f"{url}/sandbox/calls", json=order).status_code == 202


def missed(events: list[CallEvent]) -> Counter[str]:
    return Counter(e.call_id for e in events if e.type is EventType.MISSED_CALL)


def unanswered(events: list[CallEvent]) -> set[str]:
    """Return the incoming and internal calls that have ended without an answer."""
    ended = [(e.call_id, e.summary) for e in events if e.type is EventType.CALL_ENDED]
    return {id_ for id_, c in ended if c and c.outcome != "answered" and c.direction != "out"}


def test_calls_whose_callbacks_were_lost_are_closed_or_recovered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.example()
    store.zone = ZoneInfo("Europe/Berlin")
    with (
        serve(create_exchange(store, callbacks)) as pbx,
        Installation.running(
            tmp_path, HANDLERS.format(url=pbx), settle=2.0, settle_unanswered=2.0, partitions=2
        ) as offhook,
    ):
        monkeypatch.setenv("OFFHOOK_CONFIG", offhook.environment["OFFHOOK_CONFIG"])
        address = {"OFFHOOK_PUBLIC_URL": f"http://127.0.0.1:{offhook.port}"}
        setup = [OFFHOOK, "setup", *PHONES, "0003*400", "--yes"]
        subprocess.run(setup, env=offhook.environment | address, check=True, capture_output=True)
        seeds = count()
        for drop in ("none", "hangup", "all"):
            for scenario in Scenario:
                place(pbx, scenario, drop, next(seeds))
        each = len(Scenario)
        wait_until(lambda: len(store.records()) == 3 * each, "every call is over", 60)

        def told() -> list[CallEvent]:
            path = offhook.output / "crm"
            text = path.read_text() if path.exists() else ""
            lines = text.rpartition("\n")[0].splitlines()
            return [CallEvent.from_dict(json.loads(line)) for line in lines]

        def ended() -> Counter[str]:
            return Counter(e.call_id for e in told() if e.type is EventType.CALL_ENDED)

        wait_until(lambda: len(ended()) == each, "the calls that lost nothing have ended")
        rng = random.Random()
        for _ in range(3):
            run_and_be_killed(rng.uniform(0.1, 1.0))
        done = asyncio.run(reconcile())
        assert (done.records, done.here + len(done.recovered)) == (3 * each, 3 * each)
        wait_until(lambda: len(ended()) == 3 * each, "every call has ended")
        again = asyncio.run(reconcile())
        assert (again.here, again.closed, again.recovered) == (3 * each, (), ())
        report = subprocess.run(
            [OFFHOOK, "calls", "reconcile", "--since", "1h", "--json"],
            env=offhook.environment,
            capture_output=True,
            text=True,
        )
        # The server of this test was just started, and there may be journals.
        assert "try again in 10 minutes" in report.stderr.lower()
        wait_until(
            lambda: len(missed(told())) == len(unanswered(told())), "the missed calls are told"
        )
        events = told()
    assert set(ended().values()) == {1}
    kinds = {e.type for e in events}
    assert EventType.CALL_CORRECTED not in kinds
    calls = {e.call_id: e.summary for e in events if e.type is EventType.CALL_ENDED}
    closings = Counter((c.closed_by, c.recovered) for c in calls.values() if c)
    assert closings == {("hangup", False): each, ("records", False): each, ("records", True): each}
    assert missed(events) == dict.fromkeys(unanswered(events), 1)
    records: dict[str, Any] = {record.id: record for record in store.records()}
    for call in calls.values():
        if call is not None and call.recovered:
            record = records[call.id.removeprefix("record-")]
            assert abs(call.started - record.published) < timedelta(seconds=1.5)
            talked = any(leg.answered and leg.extension in PHONES for leg in record.legs)
            assert (call.outcome == "answered") is talked


def test_scheduler_starts_the_job(tmp_path: Path) -> None:
    with (
        serve(create_exchange(Store.example(), callbacks)) as pbx,
        Installation.running(tmp_path, HANDLERS.format(url=pbx)) as offhook,
        offhook.client() as redis,
    ):
        wait_until(lambda: bool(redis.hget("offhook:reconciled:main", "until")), "it has begun")
        assert 3000 < redis.ttl("offhook:scheduled:workers.reconcile.job.reconcile") <= 3600
