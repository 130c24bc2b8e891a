"""Metrics: the figures of an installation as Prometheus reads them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import redis as blocking
from prometheus_client.parser import text_string_to_metric_families

from offhook import queues
from offhook.connection import connect
from offhook.event import to_stored
from offhook.inbox import Inbox, keys, refused
from offhook.inbox.latency import BOUNDS, Latencies
from offhook.inbox.leases import Leases
from offhook.inbox.partition import Changes, Partition
from offhook.inbox.positions import START
from offhook.operations.metrics import Metrics
from offhook.settings import HandlerSettings, PbxSettings, Settings, TenantSettings
from tests.conftest import SECRET
from tests.events import batch_of, event


def settings(url: str, *handlers: str, **more: Any) -> Settings:
    return Settings(
        secret=SECRET,  # type: ignore[arg-type]
        redis_url=url,
        partitions=2,
        handlers={name: HandlerSettings(use="tests:none") for name in handlers},
        pbx={"main": PbxSettings()},
        **more,
    )


@asynccontextmanager
async def metrics_of(chosen: Settings, journal: int = 0) -> AsyncIterator[Metrics]:
    metrics = Metrics(chosen, lambda: journal)
    try:
        yield metrics
    finally:
        await metrics.close()


def read(text: bytes) -> dict[str, float]:
    """Return the samples, each named as Prometheus writes it, such as `up{handler="crm"}`."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


async def fill(url: str) -> None:
    """Append four events: delivered, parked, in flight, unread. Open the circuit of `crm`."""
    async with connect(url) as client:
        inbox = Inbox(client, 2)
        await inbox.register({"crm": "earliest", "log": "earliest", "removed": "earliest"})
        events = [event(f"call-{n}", n) for n in range(4)]
        await inbox.append(batch_of(*events), 0)
        partition = Partition(client, client, 0)
        await partition.lease.take()
        _, _, in_flight = [p.decode() for p, _ in await partition.range("", START, b"+", 3)]
        await partition.numbered(
            Changes(
                streams=[("", in_flight, 0, [], ["crm", f"- {in_flight}", "log", ""], [])],
                lanes=[("park", "crm", events[1].call, events[1].id, 1, "9999999999999", 1)],
                stored=[to_stored(events[1])],
                counts={("crm", "delivered"): 1, ("crm", "failed"): 3},
                latencies=[("10", 2), ("inf", 1), ("sum", 2500)],
            )
        )()
        await Leases(client, 2, "", 1).note_circuit("crm", 60)
        await Leases(client, 2, "", 1).share()
        await client.hset(keys.REGISTERED, "main/", "[4,0]")
        await client.hset(keys.REGISTERED, "main/acme", "[1,2]")
        await client.hset(keys.REGISTERED, "no longer configured/", "[1,1]")
        await refused.add(client, {"accepted": 4, "repeated": 1, "wrong_token": 2})


async def test_metrics_say_what_is_in_redis(redis_url: str) -> None:
    await fill(redis_url)
    with blocking.Redis.from_url(redis_url) as rq:
        queues.bury(rq, "crm", event(), attempt=1, error="no", trace="")
    chosen = settings(redis_url, "crm", "log")
    async with metrics_of(chosen, journal=17) as metrics:
        text = await metrics.text()
    found = read(text)
    expected: Mapping[str, float] = {
        "offhook_redis_up": 1,
        "offhook_journal_bytes": 17,
        "offhook_journal_limit_bytes": 1e9,
        'offhook_callbacks_total{outcome="accepted"}': 4,
        'offhook_callbacks_total{outcome="repeated"}': 1,
        'offhook_callbacks_refused_total{reason="wrong_token"}': 2,
        'offhook_callbacks_refused_total{reason="quarantined"}': 0,
        "offhook_events_total": 4,
        "offhook_inbox_events": 4,
        "offhook_parked_calls": 1,
        "offhook_scheduler_up": 0,
        'offhook_handler_lag_events{handler="crm"}': 1,
        'offhook_handler_lag_events{handler="log"}': 1,
        'offhook_handler_in_flight{handler="crm"}': 1,
        'offhook_handler_in_flight{handler="log"}': 0,
        'offhook_attempts_total{handler="crm",outcome="delivered"}': 1,
        'offhook_attempts_total{handler="crm",outcome="failed"}': 3,
        'offhook_attempts_total{handler="log",outcome="failed"}': 0,
        'offhook_circuit_open{handler="crm"}': 1,
        'offhook_circuit_open{handler="log"}': 0,
        'offhook_dead_letters{handler="crm"}': 1,
        'offhook_serving_processes{queue="offhook.serve"}': 1,
        'offhook_unserved_partitions{queue="offhook.serve"}': 1,
        'offhook_phones{pbx="main",state="registered"}': 5,
        'offhook_phones{pbx="main",state="unregistered"}': 2,
        'offhook_delivery_latency_seconds_bucket{le="0.005"}': 0,
        'offhook_delivery_latency_seconds_bucket{le="0.01"}': 2,
        'offhook_delivery_latency_seconds_bucket{le="3600"}': 2,
        'offhook_delivery_latency_seconds_bucket{le="+Inf"}': 3,
        "offhook_delivery_latency_seconds_sum": 2.5,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert 0 < found['offhook_handler_lag_seconds{handler="crm"}'] < 60
    assert b"removed" not in text
    assert b"no longer configured" not in text
    assert SECRET.encode() not in text


async def test_lag_in_seconds_is_the_age_of_the_first_event_that_is_not_finished(
    redis_url: str,
) -> None:
    now = time.time() * 1000
    with blocking.Redis.from_url(redis_url) as client:
        for n, age in enumerate((900, 600, 300), 1):
            client.xadd(keys.inbox(1), {"e": "{}", "n": str(n)}, id=f"{int(now - age * 1000)}-0")
        client.set(keys.last(1), 3)
        first, second, third = [each.decode() for each, _ in client.xrange(keys.inbox(1))]
        client.hset(keys.read(1), "", second)
        client.hset(keys.behind(1), mapping={"crm": f"- {first}", "log": third, "far": "0-0"})
    async with metrics_of(settings(redis_url, "crm", "log", "chat", "far")) as metrics:
        found = read(await metrics.text())
    lag = {
        name: round(found[f'offhook_handler_lag_seconds{{handler="{name}"}}'], -1)
        for name in ("crm", "log", "chat", "far")
    }
    assert lag == {"crm": 900, "log": 0, "chat": 300, "far": 900}
    assert found['offhook_handler_lag_events{handler="far"}'] == 3


async def test_handlers_of_all_tenants_are_reported_once(redis_url: str) -> None:
    handler = HandlerSettings(use="tests:none")
    chosen = settings(redis_url).model_copy(
        update={
            "handlers": {"log": HandlerSettings(use="tests:none", tenants="all")},
            "tenants": {
                name: TenantSettings(extensions=[f"main/{name}*"], handlers={"crm": handler})
                for name in ("acme", "duck")
            },
        }
    )
    async with connect(redis_url) as client:
        for tenant, count in (("", 1), ("acme", 2), ("duck", 3)):
            for n in range(1, count + 1):
                await client.xadd(keys.inbox(0, tenant), {"e": "{}", "n": str(n)})
            await client.set(keys.last(0, tenant), count)
        await client.hset(keys.counts(0, "log"), "delivered", "5")
        await client.hset(keys.counts(0, "acme/crm"), mapping={"delivered": "1", "failed": "1"})
        await client.xadd(keys.quarantine("duck"), {"a": "b"})
    with blocking.Redis.from_url(redis_url) as rq:
        queues.bury(rq, "acme/crm", event(), attempt=1, error="no", trace="")
    async with metrics_of(chosen) as metrics:
        found = read(await metrics.text())
    expected: Mapping[str, float] = {
        "offhook_events_total": 6,
        "offhook_inbox_events": 6,
        "offhook_quarantine_entries": 1,
        'offhook_handler_lag_events{handler="log"}': 6,
        'offhook_handler_lag_events{handler="acme/crm"}': 2,
        'offhook_handler_lag_events{handler="duck/crm"}': 3,
        'offhook_attempts_total{handler="log",outcome="delivered"}': 5,
        'offhook_attempts_total{handler="acme/crm",outcome="delivered"}': 1,
        'offhook_attempts_total{handler="duck/crm",outcome="delivered"}': 0,
        'offhook_dead_letters{handler="acme/crm"}': 1,
    }
    assert {name: found.get(name) for name in expected} == expected


async def test_scrapes_share_one_look_at_redis_a_second(redis_url: str) -> None:
    with blocking.Redis.from_url(redis_url) as client:
        client.config_resetstat()
        async with metrics_of(settings(redis_url, "crm")) as metrics:
            texts = await asyncio.gather(*(metrics.text() for _ in range(20)))
            assert len({*texts}) == 1
            assert client.info("commandstats")["cmdstat_time"]["calls"] == 1
            await asyncio.sleep(1.1)
            await metrics.text()
        assert client.info("commandstats")["cmdstat_time"]["calls"] == 2


async def test_many_handlers_are_read_in_few_commands(redis_url: str) -> None:
    names = [f"handler-{n}" for n in range(2000)]
    with blocking.Redis.from_url(redis_url) as client:
        client.config_resetstat()
        async with metrics_of(settings(redis_url, *names)) as metrics:
            found = read(await metrics.text())
        assert len([name for name in found if "_attempts_total" in name]) == 6000
        stats: Any = client.info("commandstats")
    sent = {"evalsha", "eval", "exists", "get", "xlen", "hlen", "zcard", "hgetall"}
    assert sum(stats.get(f"cmdstat_{each}", {"calls": 0})["calls"] for each in sent) < 100


@pytest.mark.parametrize("away", ["redis_url", "rq_url"])
async def test_without_redis_metrics_say_so(redis_url: str, away: str) -> None:
    nowhere = "redis://127.0.0.1:1"
    chosen = (
        settings(nowhere) if away == "redis_url" else settings(redis_url, "crm", rq_url=nowhere)
    )
    with blocking.Redis.from_url(redis_url) as client:
        client.hset(keys.counts(0, "crm"), "failed", "1")
    async with metrics_of(chosen, journal=99) as metrics:
        found = read(await metrics.text())
    assert (found["offhook_redis_up"], found["offhook_journal_bytes"]) == (0, 99)
    assert "offhook_events_total" not in found


def test_a_latency_is_in_the_first_bucket_that_is_not_below_it() -> None:
    latencies, accepted = Latencies(), datetime(2026, 5, 1, tzinfo=UTC)
    for milliseconds in (0, 5, 6, BOUNDS[-1], BOUNDS[-1] + 1, -1000):
        latencies.add(accepted, accepted.timestamp() + (milliseconds + 0.5) / 1000)
    assert latencies.take() == [
        ("5", 3),
        ("10", 1),
        (str(BOUNDS[-1]), 1),
        ("inf", 1),
        ("sum", 12 + 2 * BOUNDS[-1]),
    ]
    assert latencies.take() == []
