"""Tenants in a server: each handler gets the events of its tenant, and calls are apart."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from offhook import CallEvent, Context, EventType, Outcome, PermanentError, TemporaryError
from offhook.dialects.voipnow import read_event
from offhook.inbox import keys
from offhook.inbox.call_store import Calls
from offhook.operations import dead_letters
from offhook.settings import LookupSettings, TenantLimits, TenantSettings
from tests.events import event
from tests.workers.serving.bench import Bench, Handle, until

T = EventType


@pytest.fixture
def got(bench: Bench) -> dict[str, list[CallEvent]]:
    """Return what each handler gets, by its full name, and let the bench have two tenants."""
    bench.tenants = {
        "acme": TenantSettings(extensions=["main/0003**"]),
        "beta": TenantSettings(extensions=["main/0004**"]),
    }
    return {}


def recording(got: dict[str, list[CallEvent]], name: str) -> Handle:
    async def handle(one: CallEvent, context: Context) -> None:
        got.setdefault(name, []).append(one)

    return handle


def ns(events: list[CallEvent]) -> list[str]:
    return [each.parameters["n"] for each in events]


async def test_an_event_goes_to_its_tenants_handlers(
    bench: Bench, got: dict[str, list[CallEvent]]
) -> None:
    for name in ("crm", "acme/crm", "beta/crm"):
        bench.plug(recording(got, name), name)
    bench.plug(recording(got, "all"), "all", tenants="all")
    bench.plug(recording(got, "some"), "some", tenants=["beta"])
    await bench.append(
        event(n=1), event(n=2, tenant="acme"), event(n=3, tenant="beta"), event(n=4, tenant="beta")
    )
    await bench.deliver()
    assert {name: sorted(ns(events)) for name, events in got.items()} == {
        "crm": ["1"],
        "acme/crm": ["2"],
        "beta/crm": ["3", "4"],
        "all": ["1", "2", "3", "4"],
        "some": ["1", "3", "4"],
    }
    assert sorted(each.tenant for each in got["all"]) == ["", "acme", "beta", "beta"]


async def test_a_tenants_new_handler_begins_with_what_is_not_read(
    bench: Bench, got: dict[str, list[CallEvent]]
) -> None:
    bench.plug(recording(got, "acme/crm"), "acme/crm")
    await bench.append(event(n=1, tenant="acme"))  # before any handler has a position
    await bench.deliver()
    bench.plug(recording(got, "acme/new"), "acme/new")
    bench.plug(recording(got, "acme/old"), "acme/old", start="earliest")
    await bench.append(event(n=2, tenant="acme"))
    await bench.deliver()
    assert {name: ns(events) for name, events in got.items()} == {
        "acme/crm": ["1", "2"],
        "acme/new": ["2"],
        "acme/old": ["1", "2"],
    }


async def test_events_of_a_tenant_wait_until_it_is_configured(
    bench: Bench, got: dict[str, list[CallEvent]]
) -> None:
    bench.plug(recording(got, "all"), "all", tenants="all")
    await bench.append(event(n=1, tenant="new"), event(n=2, tenant="acme"))  # a receiver knows it
    async with bench.serving():
        await until(lambda: ns(got.get("all", [])) == ["2"])
    assert b"new" in bench.redis.smembers(keys.unfinished(0))
    bench.tenants["new"] = TenantSettings(extensions=[])
    bench.plug(recording(got, "new/crm"), "new/crm")
    await bench.deliver()
    assert (ns(got["all"]), ns(got["new/crm"])) == (["2", "1"], ["1"])


async def test_equal_calls_of_two_tenants_are_apart(
    bench: Bench, got: dict[str, list[CallEvent]]
) -> None:
    bench.change(settle=0.0, settle_unanswered=0.0)
    bench.plug(recording(got, "all"), "all", tenants="all", events=["calls"])

    def said(type_: T, status: str, tenant: str) -> CallEvent:
        parameters = {"CallID": "c1", "CallFlow": "IN", "CallStatus": status}
        made = read_event(pbx="main", extension="0003*210", type=type_, parameters=parameters)
        return replace(made, tenant=tenant)

    await bench.append(
        *(said(T.DIAL_IN, "CALLING", tenant) for tenant in ("", "acme", "beta")),
        said(T.ANSWER_IN, "ANSWER", "acme"),
        *(said(T.HANGUP, "ANSWER" if tenant else "NOANSWER", tenant) for tenant in ("", "acme")),
    )
    async with bench.serving():
        await until(lambda: sum(e.type is T.CALL_ENDED for e in got.get("all", ())) == 2)

        async def check(inbox: object) -> None:
            calls = Calls(inbox)  # type: ignore[arg-type]
            since = datetime.now(UTC) - timedelta(hours=1)
            for tenant in ("", "acme", "beta"):
                found = [kept.name async for kept in calls.since(since, tenant)]
                assert found == [f"{tenant}:main/c1" if tenant else "main/c1"]
            kept = await calls.get("acme:main/c1")
            assert kept is not None
            assert {each.tenant for each in await calls.events(kept)} == {"acme"}
            assert await calls.live() == 1  # beta's

        await bench.with_inbox(check)
    ended = {each.tenant: each.summary for each in got["all"] if each.type is T.CALL_ENDED}
    assert {tenant: call.outcome for tenant, call in ended.items() if call} == {
        "": Outcome.MISSED,
        "acme": Outcome.ANSWERED,
    }
    assert len({each.id for each in got["all"]}) == len(got["all"])


async def test_equal_calls_wait_in_lanes_of_their_own(
    bench: Bench, got: dict[str, list[CallEvent]]
) -> None:
    async def fails_for_acme(one: CallEvent, context: Context) -> None:
        if one.tenant == "acme" and not got.get("mended"):
            raise TemporaryError("not yet")
        got.setdefault("all", []).append(one)

    bench.plug(fails_for_acme, "all", tenants="all", retry=[1, 1, 1])
    await bench.append(*(event(n=n, tenant=tenant) for n in (1, 2) for tenant in ("acme", "beta")))
    await bench.deliver()
    assert [(each.tenant, each.parameters["n"]) for each in got["all"]] == [
        ("beta", "1"),
        ("beta", "2"),
    ]
    assert bench.redis.llen(keys.lane(0, "all", "acme:main/call-1")) == 2
    got["mended"] = [event()]
    async with bench.serving():
        await bench.all_done()
    assert [(each.tenant, each.parameters["n"]) for each in got["all"][2:]] == [
        ("acme", "1"),
        ("acme", "2"),
    ]


async def test_dead_letters_know_their_tenant(bench: Bench) -> None:
    async def refuses(one: CallEvent, context: Context) -> None:
        raise PermanentError("never")

    for tenant in ("acme", "beta"):
        bench.tenants[tenant] = TenantSettings(extensions=[])
        bench.plug(refuses, f"{tenant}/crm")
    bench.plug(refuses, "all", tenants=["beta"])
    same = event()
    await bench.append(replace(same, tenant="acme"), replace(same, tenant="beta"))
    await bench.deliver()
    letters = list(dead_letters.find(bench.redis))
    assert sorted((each.handler, each.event.tenant) for each in letters) == [
        ("acme/crm", "acme"),
        ("all", "beta"),
        ("beta/crm", "beta"),
    ]
    assert [each.id for each in dead_letters.find(bench.redis, after=letters[0].id)] == [
        each.id for each in letters[1:]
    ]


async def test_each_tenants_lookups_name_its_callers(
    bench: Bench, got: dict[str, list[CallEvent]], tmp_path: Path
) -> None:
    def book(name: str) -> LookupSettings:
        file = tmp_path / f"{name}.csv"
        file.write_text(f"number,name\n+442079460100,{name}\n")
        return LookupSettings(use="csv", options={"path": str(file)}, lifetime=300)

    bench.tenants["acme"] = TenantSettings(extensions=[], lookups={"book": book("of acme")})
    bench.tenants["beta"] = TenantSettings(extensions=[], lookups={"book": book("of beta")})
    own_code = LookupSettings(use="tests.workers.books:Fixed", options={"name": "never asked here"})
    bench.tenants["code"] = TenantSettings(extensions=[], lookups={"book": own_code})
    bench.change(lookups={"book": book("of the operator")})
    bench.plug(recording(got, "all"), "all", tenants="all")
    bench.tenants["gamma"] = TenantSettings(extensions=[])
    bench.plug(recording(got, "gamma/crm"), "gamma/crm")

    def called(tenant: str) -> CallEvent:
        parameters = {"CallID": "c1", "CallFlow": "IN", "CallerIDNum": "+442079460100", "n": "1"}
        made = read_event(pbx="main", extension="0003*210", type=T.DIAL_IN, parameters=parameters)
        return replace(made, tenant=tenant)

    await bench.append(*map(called, ("", "acme", "beta", "code", "gamma")))
    await bench.deliver()
    assert {each.tenant: each.caller.name for each in got["all"]} == {
        "": "of the operator",
        "acme": "of acme",
        "beta": "of beta",
        "code": None,
        "gamma": None,
    }
    assert set(bench.redis.scan_iter("offhook:lookup:*:name:*")) == {
        keys.lookup_name(lookup, "+442079460100").encode()
        for lookup in ("book", "acme/book", "beta/book")
    }


async def test_a_tenants_pool_looks_at_its_tenants_alone(
    bench: Bench, got: dict[str, list[CallEvent]]
) -> None:
    bench.plug(recording(got, "acme/crm"), "acme/crm", process="own")
    bench.plug(recording(got, "beta/crm"), "beta/crm")
    await bench.append(event(n=1, tenant="acme"), event(n=2, tenant="beta"))
    async with bench.serving(), bench.serving(pool="acme/crm") as own:
        await until(
            lambda: (
                {name: ns(each) for name, each in got.items()}
                == {"acme/crm": ["1"], "beta/crm": ["2"]}
            )
        )
        await bench.append(event(n=3, tenant="beta"), event(n=4, tenant="acme"))
        await until(lambda: [len(each) for each in got.values()] == [2, 2])
        assert [*own.share.partitions[0].streams] == ["acme"]
    members = bench.redis.smembers(keys.unfinished(0, "acme/crm"))
    assert members <= {b"acme"}


async def test_a_tenants_handlers_work_on_so_many_calls_together(bench: Bench) -> None:
    bench.tenants = {
        "acme": TenantSettings(extensions=[], limits=TenantLimits(concurrency=3)),
        "beta": TenantSettings(extensions=[]),
    }
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    got: Counter[str] = Counter()

    def slow(name: str) -> Handle:
        async def handle(one: CallEvent, context: Context) -> None:
            tenant = name.partition("/")[0]
            running[tenant] += 1
            most[tenant] = max(most[tenant], running[tenant])
            await asyncio.sleep(0.005)
            running[tenant] -= 1
            got[name] += 1
            if got["acme/one"] < 20:
                assert got["acme/two"] <= got["acme/one"] + 10  # each in its turn

        return handle

    for name in ("acme/one", "acme/two", "beta/one"):
        bench.plug(slow(name), name)
    await bench.append(*(event(f"c{n}", n, tenant=t) for n in range(40) for t in ("acme", "beta")))
    await bench.deliver()
    assert got == {"acme/one": 40, "acme/two": 40, "beta/one": 40}
    assert most["acme"] == 3
    assert most["beta"] > 3


async def test_calls_of_a_tenant_do_not_wait_for_anothers_flood(bench: Bench) -> None:
    bench.tenants = {name: TenantSettings(extensions=[]) for name in ("flood", "calm")}
    order: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        order.append(one.tenant)

    bench.plug(handle, "all", tenants="all", events=["calls"])
    await bench.append(*(event(f"f{n}", n, tenant="flood") for n in range(2000)))
    await bench.append(event("c", tenant="calm"))
    async with bench.serving():
        await until(lambda: "calm" in order, seconds=60)
    assert order.index("calm") < 1000


async def test_keep_days_and_calls_are_per_tenant(bench: Bench) -> None:
    bench.tenants["acme"] = TenantSettings(extensions=[], keep_days=2)
    bench.plug(recording({}, "crm"))
    bench.change(tenants=bench.tenants)
    await bench.append(event(), event(tenant="acme"))
    async with bench.serving():
        await until(lambda: bench.redis.exists(keys.call(0, "acme:main/call-1")))
        await until(lambda: bench.redis.exists(keys.call(0, "main/call-1")))
    days = 24 * 3600
    assert 1.9 * days < bench.redis.ttl(keys.call(0, "acme:main/call-1")) <= 2 * days
    assert 6.9 * days < bench.redis.ttl(keys.call(0, "main/call-1")) <= 7 * days
