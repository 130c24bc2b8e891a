"""What is scheduled, for each tenant: summaries, phones, silence, records of the PBX, retention."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace
from redis import Redis

from offhook import CallEvent, EventType, ExtensionSettings
from offhook.connection import opened
from offhook.event import from_stored
from offhook.extensions import Extensions
from offhook.inbox import Inbox, keys, quarantine
from offhook.inbox.call_store import Calls
from offhook.provisioning.api import open_api
from offhook.settings import Settings, load_settings
from offhook.testing import sample_event
from tests.conftest import Configure
from tests.events import batch_of, event
from tests.offhook.sandbox import sandbox
from tests.workers.folded import fold
from tests.workers.reconcile.reconciling import Bench, configuration
from unifiedapi.resources import RegistrationStatus
from workers import daily_summary, phones, silence
from workers.reconcile.reconciliation import Reconciliation
from workers.retention import _delete_expired
from workers.scheduler import Scheduler

T = TypeVar("T")
TENANTS = """
[tenants.acme]
extensions = ["main/0003**"]
zone = "Asia/Tokyo"
daily_summary = "18:00"
keep_days = 1
[tenants.beta]
extensions = ["main/0004**"]
"""


def do(settings: Settings, go: Callable[[Inbox], Awaitable[T]]) -> T:
    async def run() -> T:
        async with opened(settings) as (inbox, _):
            return await go(inbox)

    return asyncio.run(run())


def events_of(redis_url: str, tenant: str = "") -> list[CallEvent]:
    with Redis.from_url(redis_url) as client:
        found: Any = client.xrange(keys.inbox(0, tenant))
    return [from_stored(fields[b"e"]) for _, fields in found]


def test_each_tenant_has_its_daily_summary(configure: Configure, redis_url: str) -> None:
    configure(TENANTS, daily_summary="18:00", settle=0.1, settle_unanswered=0.1)
    settings = load_settings()
    said = [
        replace(sample_event(type_, received=datetime.now(UTC)), call_id=call, tenant=tenant)
        for tenant, calls in (("acme", ("c1", "c2")), ("beta", ("c1",)))
        for call in calls
        for type_ in ("dial-in", "hangup")
    ]
    do(settings, lambda inbox: inbox.append(batch_of(*said), 0))
    fold(settings)
    utc = datetime.now(UTC)
    noon = utc.astimezone(timezone(timedelta(hours=12 - utc.hour)))  # where it is noon now
    for now in (noon.replace(hour=19) - timedelta(days=1), noon.replace(hour=19)):
        for tenant in ("", "acme", "beta"):
            day = now
            do(settings, lambda i: daily_summary.announce_day(settings, i, day, tenant))  # noqa: B023
    told = {
        tenant: [e for e in events_of(redis_url, tenant) if e.type is EventType.DAILY_SUMMARY]
        for tenant in ("", "acme", "beta")
    }
    assert {tenant: [e.parameters["calls"] for e in its] for tenant, its in told.items()} == {
        "": [],
        "acme": ["2"],
        "beta": ["1"],
    }
    assert [told[tenant][0].tenant for tenant in ("acme", "beta")] == ["acme", "beta"]
    assert told["acme"][0].id != told["beta"][0].id


def test_phones_and_silence_are_announced_to_their_tenant(
    configure: Configure, redis_url: str
) -> None:
    with sandbox() as pbx:
        configure(configuration(pbx) + TENANTS)
        settings = load_settings()
        names = {("main", number): ExtensionSettings() for number in ("0003*211", "0003*212")}
        do(settings, lambda inbox: Extensions(inbox.redis).change(names))
        for state in (RegistrationStatus.REGISTERED, *2 * [RegistrationStatus.EXPIRED]):
            for phone in pbx.store.extensions["0003*211"].phones:
                phone.registration = state
            asyncio.run(phones.watch_all(settings))
    assert events_of(redis_url) == []
    [gone] = events_of(redis_url, "acme")
    assert (gone.type, gone.tenant) == (EventType.PHONE_UNREGISTERED, "acme")

    settings = settings.model_copy(update={"settle": 0.0, "settle_unanswered": 0.0})
    name = ("main", "0003*211")

    async def look(inbox: Inbox) -> None:
        counted = await silence._count(settings, inbox, {name}, datetime.now(UTC))
        assert counted[name].total() == 1

    call = replace(sample_event("dial-in", received=datetime.now(UTC)), extension=name[1])
    do(settings, lambda inbox: inbox.append(batch_of(replace(call, tenant="acme")), 0))
    fold(settings)
    do(settings, look)


def test_a_tenants_own_access_watches_its_phones(configure: Configure, redis_url: str) -> None:
    with sandbox() as pbx:
        own = f"[tenants.acme.pbx.main]\nhost = '{pbx.url}'\ntoken = 'sandbox-token'\n"
        own += "insecure = true\n"
        configure("[handlers.screen]\nuse = 'console'\n[pbx.main]\n" + TENANTS + own)
        settings = load_settings()
        names = {("main", number): ExtensionSettings() for number in ("0003*211", "0004*212")}
        do(settings, lambda inbox: Extensions(inbox.redis).change(names))
        asyncio.run(phones.watch_all(settings))
    with Redis.from_url(redis_url) as client:
        assert client.hkeys(keys.phones("main", "acme")) == [b"0003*211"]
        assert not client.exists(keys.phones("main"))


@pytest.mark.parametrize("dry_run", [False, True])
def test_lost_calls_are_recovered_for_their_tenant(
    configure: Configure, redis_url: str, *, dry_run: bool
) -> None:
    with sandbox() as pbx:
        configure(configuration(pbx) + TENANTS)
        bench = Bench(pbx, redis_url)
        bench.place("answered", "all")

        async def go(inbox: Inbox, only: str | None) -> int:
            async with open_api(bench.settings, "main") as api:
                work = Reconciliation(bench.settings, "main", api, inbox, timedelta(), only=only)
                since = datetime.now(UTC) - timedelta(hours=12)
                return len((await work.since(since, dry_run=dry_run)).recovered)

        assert bench.run(lambda inbox: go(inbox, "beta")) == 0
        assert bench.run(lambda inbox: go(inbox, None)) == 1
        bench.keep()
        assert bench.run(lambda inbox: go(inbox, "acme")) == (1 if dry_run else 0)
        bench.redis.close()
    assert events_of(redis_url) == []
    assert {each.tenant for each in events_of(redis_url, "acme")} == (
        set() if dry_run else {"acme"}
    )


def test_events_and_refusals_are_kept_for_each_tenants_time(
    configure: Configure, redis_url: str
) -> None:
    configure('[handlers.crm]\nuse = "console"\n' + TENANTS, quarantine_days=1)
    settings = load_settings()
    two_days_ago = int((datetime.now(UTC) - timedelta(days=2)).timestamp() * 1000)
    with Redis.from_url(redis_url) as client:
        for tenant in ("", "acme", "beta"):
            for n in range(200):
                stored = batch_of(event(tenant=tenant)).events[0]
                entry = {"e": bytes(stored), "n": n + 1}
                client.xadd(keys.inbox(0, tenant), entry, id=f"{two_days_ago}-{n + 1}")
            client.hset(keys.read(0), tenant, f"{two_days_ago}-200")
            client.hset(keys.folded(0), tenant, f"{two_days_ago}-200")
            client.xadd(keys.quarantine(tenant), {"a": "b"}, id=f"{two_days_ago}-1")

        async def trim(inbox: Inbox) -> None:
            await Scheduler(settings, inbox, client).trim()

        do(settings, trim)
        asyncio.run(_delete_expired(settings))
        left = {tenant: client.xlen(keys.inbox(0, tenant)) for tenant in ("", "acme", "beta")}
        assert left[""] == left["beta"] == 200
        assert left["acme"] < 200

        async def refused(inbox: Inbox) -> list[int]:
            return [await quarantine.length(inbox.redis, t) for t in ("", "acme", "beta")]

        assert do(settings, refused) == [0, 0, 0]


def test_calls_of_a_tenant_are_listed_apart(configure: Configure) -> None:
    configure(TENANTS)
    settings = load_settings()
    do(settings, lambda i: i.append(batch_of(event("a"), event("b", tenant="acme")), 0))
    fold(settings, settled=False)

    async def listed(inbox: Inbox, tenant: str) -> list[str]:
        since = datetime.now(UTC) - timedelta(hours=1)
        return [kept.name async for kept in Calls(inbox).since(since, tenant)]

    assert do(settings, lambda inbox: listed(inbox, "")) == ["main/a"]
    assert do(settings, lambda inbox: listed(inbox, "acme")) == ["acme:main/b"]
    assert do(settings, lambda inbox: listed(inbox, "beta")) == []
