"""Offhook's own trouble: the rules, and what a real inbox and real servers get."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from offhook import CallEvent, Context, EventType, PermanentError, TemporaryError
from offhook.announcements import announce
from offhook.connection import opened
from offhook.errors import InboxUnavailable
from offhook.event import TROUBLE, from_stored, to_stored
from offhook.inbox import keys, refused
from offhook.plugins import PluggedHandler
from offhook.settings import HandlerSettings, TenantSettings
from offhook.testing import sample_event, sample_events
from tests.workers.serving.bench import Bench, until
from workers import trouble_events, trouble_watch
from workers.trouble_watch import (
    HOLD,
    HandlerTrouble,
    StoreTrouble,
    TroubleWatch,
    look_at_handler,
    look_at_stores,
)

NOW = datetime(2026, 11, 28, tzinfo=UTC).timestamp()


def looks(*seen: tuple[int, int, int, bool], every: float = 10.0) -> list[CallEvent]:
    """The events of looks that saw these: delivered, failed, dead, circuit open."""
    state: HandlerTrouble | None = None
    told: list[CallEvent] = []
    for n, (delivered, failed, dead, is_open) in enumerate(seen):
        counts = Counter(delivered=delivered, failed=failed, dead=dead)
        state, events = look_at_handler("crm", state, counts, NOW + n * every, is_open=is_open)
        told += events
    return told


def types(events: list[CallEvent]) -> list[str]:
    return [str(event.type) for event in events]


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ([(0, 900, 5, False)], []),  # from before the first look
        ([(0, 0, 0, True)], ["handler-failing"]),
        ([(5, 0, 0, False), (5, 4, 0, False)], []),
        ([(5, 0, 0, False), (5, 5, 0, False), (5, 9, 0, True)], ["handler-failing"]),
        ([(5, 0, 0, False), (5, 4, 0, False), (6, 8, 0, False), (6, 12, 0, False)], []),
        # A circuit that is half-open looks closed. Without a delivery it has not recovered.
        ([(0, 0, 0, True), *[(0, 1, 0, False)] * 30], ["handler-failing"]),
        ([(0, 0, 0, True), *[(1, 0, 0, False)] * 6], ["handler-failing"]),
        ([(0, 0, 0, True), *[(1, 0, 0, False)] * 7], ["handler-failing", "handler-recovered"]),
        ([(0, 0, 0, True), *[(1, 0, 0, False), (1, 1, 0, True)] * 30], ["handler-failing"]),
        ([(0, 0, 0, False), (0, 1, 3, False), (0, 1, 4, False)], ["dead-letter"]),
        ([(9, 0, 7, False), (0, 0, 0, False), (0, 0, 1, False)], ["dead-letter"]),  # forgotten
    ],
)
def test_each_change_is_announced_once(
    seen: list[tuple[int, int, int, bool]], told: list[str]
) -> None:
    assert types(looks(*seen)) == told


def test_more_dead_letters_are_announced_together_later() -> None:
    events = looks((0, 0, 0, False), *[(0, 0, n, False) for n in range(1, 130)])
    assert [event.parameters["count"] for event in events] == ["1", "60", "60"]
    assert events[1].parameters["text"] == (
        "60 deliveries to crm became dead letters: `offhook dead list` says why."
    )


@given(st.lists(st.tuples(*[st.integers(0, 9)] * 2, st.booleans()), max_size=60))
def test_failing_and_recovered_alternate_and_are_rare(steps: list[tuple[int, int, bool]]) -> None:
    seen, delivered, failed = [], 0, 0
    for more, worse, is_open in steps:
        delivered, failed = delivered + more, failed + worse
        seen.append((delivered, failed, 0, is_open))
    told = types(looks(*seen))
    assert told[::2] == ["handler-failing"] * len(told[::2])
    assert told[1::2] == ["handler-recovered"] * len(told[1::2])
    assert len(told) <= 2 + 2 * len(steps) * 10 / HOLD


def test_inbox_and_journal_are_announced_once() -> None:
    state: StoreTrouble | None = None
    told: list[str] = []
    for n, (used, journaled) in enumerate(
        [(0.1, 50), (0.85, 50), (0.79, 50), (0.9, 60), (0.6, 61), (0.81, 61), (0.81, 61)]
    ):
        state, events = look_at_stores(state, used, journaled, NOW + n * 10)
        told += [f"{event.type} {event.parameters.get('count')}" for event in events]
    assert told == ["inbox-filling None", "journal-used 10", "inbox-filling None"]


# With servers


@pytest.fixture
async def bench(redis_url: str) -> AsyncIterator[Bench]:
    made = Bench(redis_url)
    yield made
    made.redis.close()


def told(bench: Bench, tenant: str = "") -> list[CallEvent]:
    """The events about trouble in the inbox."""
    found: Any = bench.redis.xrange(keys.inbox(0, tenant))
    events = [from_stored(fields[b"e"]) for _, fields in found]
    return [event for event in events if event.type in TROUBLE]


async def look(bench: Bench, now: float = NOW) -> None:
    async with opened(bench.settings) as (inbox, _):
        await TroubleWatch(bench.settings, inbox).look(now)


async def test_trouble_reaches_other_handlers_and_makes_no_more(bench: Bench) -> None:
    asked: list[str] = []

    async def refuse(event: CallEvent, context: Context) -> None:
        raise PermanentError("no")

    async def ask(event: CallEvent, context: Context) -> None:
        asked.append(event.parameters["handler"])
        raise PermanentError("no")

    bench.plug(refuse, "crm")
    bench.plug(ask, "chat", events=["dead-letter", "handler-failing"])
    bench.plug(ask, "mail", events=["dead-letter", "handler-failing"])
    await look(bench)
    await bench.append(sample_event(parameters={"n": "0"}))
    async with bench.serving():
        await until(lambda: bench.redis.hget(keys.counts(0, "crm"), "dead"))
        for n in range(1, 5):
            await look(bench, NOW + n * trouble_watch.QUIET)
        # Both refuse the event, and neither hears that the other did.
        await until(lambda: len(asked) == 2, "both handlers got the event")
        await until(lambda: bench.redis.hget(keys.counts(0, "mail"), "dead-of-trouble"))
        await until(lambda: bench.redis.hget(keys.counts(0, "chat"), "dead-of-trouble"))
        for n in range(5, 9):
            await look(bench, NOW + n * trouble_watch.QUIET)
        assert asked == ["crm", "crm"]
        assert types(told(bench)) == ["dead-letter"]
        about_chat = sample_event("dead-letter", parameters={"handler": "chat"})
        await bench.append(about_chat)
        await until(lambda: len(asked) == 3, "one of them got the event")
    assert asked == ["crm", "crm", "chat"]


async def test_an_open_circuit_is_announced_to_its_tenant_and_the_operator(bench: Bench) -> None:
    async def down(event: CallEvent, context: Context) -> None:
        raise TemporaryError("not now")

    got: dict[str, list[str]] = {"acme/chat": [], "beta/chat": [], "chat": [], "acme/crm": []}

    def hearing(name: str) -> Any:
        async def hear(event: CallEvent, context: Context) -> None:
            got[name].append(f"{event.type} {event.parameters['handler']}")

        return hear

    bench.tenants = {
        name: TenantSettings(extensions=[f"main/{n}"]) for n, name in enumerate(("acme", "beta"))
    }
    bench.plug(down, "acme/crm")
    bench.plug(hearing("acme/chat"), "acme/chat", events=["trouble"])
    bench.plug(hearing("beta/chat"), "beta/chat", events=["trouble"])
    bench.plug(hearing("chat"), "chat", events=["trouble"], tenants="all")
    await look(bench)
    async with bench.serving():
        calls = [sample_event(tenant="acme", call_id=f"c{n}") for n in range(5)]
        await bench.append(*calls)
        await until(lambda: bench.redis.exists(keys.circuit("acme/crm")), "the circuit is open")
        await look(bench, NOW + 10)
        await look(bench, NOW + 20)
        heard = ["handler-failing acme/crm"]
        await until(lambda: got["chat"] == got["acme/chat"] == heard, "both heard of it")
    assert got["beta/chat"] == []
    assert [event.tenant for event in (*told(bench), *told(bench, "acme"))] == ["", "acme"]


async def test_a_look_that_was_killed_announces_nothing_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.record()
    bench.redis.hset(keys.TROUBLE, "handler crm", b"{}")
    bench.redis.hset(keys.counts(0, "crm"), "failed", 7)
    bench.redis.hset(keys.TROUBLE, "handler gone", b"{}")

    async def refused_by_the_inbox(*_: Any, **__: Any) -> int:
        raise InboxUnavailable("full")

    async def killed(*arguments: Any, **named: Any) -> int:
        await announce(*arguments, **named)
        raise asyncio.CancelledError

    for stub, error in ((refused_by_the_inbox, InboxUnavailable), (killed, asyncio.CancelledError)):
        monkeypatch.setattr(trouble_watch, "announce", stub)
        with pytest.raises(error):
            await look(bench)
    monkeypatch.setattr(trouble_watch, "announce", announce)
    await look(bench)
    await asyncio.gather(look(bench, NOW + 10), look(bench, NOW + 20))
    [event] = told(bench)
    assert event.parameters == {
        "handler": "crm",
        "attempts": "7",
        "circuit": "closed",
        "text": "Deliveries to crm keep failing: 7 attempts in a row failed.",
    }
    assert bench.redis.hkeys(keys.TROUBLE) == [b"handler crm", b"stores"]
    assert not bench.redis.exists(keys.UNANNOUNCED)


async def test_several_schedulers_look_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.record()
    seen: list[float] = []

    async def look_at(self: TroubleWatch, now: float) -> None:
        seen.append(now)

    monkeypatch.setattr(TroubleWatch, "look", look_at)
    async with opened(bench.settings) as (inbox, _):
        watches = [TroubleWatch(bench.settings, inbox) for _ in range(3)]
        for _ in range(3):
            for watch in watches:
                await watch.round()
    assert len(seen) == 1


async def test_events_in_the_journal_are_announced(bench: Bench) -> None:
    bench.record()
    await look(bench)
    async with opened(bench.settings) as (inbox, _):
        await refused.add(inbox.redis, {refused.CallbackOutcome.JOURNALED: 3})
    await look(bench, NOW + 10)
    [event] = told(bench)
    assert (event.type, event.parameters["count"]) == (EventType.JOURNAL_USED, "3")


def test_no_handler_hears_of_itself_or_gets_trouble_by_default() -> None:
    def handler(name: str, **policy: Any) -> PluggedHandler:
        async def handle(event: CallEvent, context: Context) -> None: ...

        return PluggedHandler.of(name, HandlerSettings(use="tests:none", **policy), handle)

    event = sample_event("handler-failing")
    assert not handler("chat").wants(event)
    chat = handler("chat", events=["trouble"])
    assert chat.wants(event)
    assert chat.wants(sample_event("inbox-filling"))
    assert not chat.wants(replace(event, parameters={"handler": "chat"}))
    assert not chat.wants(replace(event, tenant="acme"))
    assert handler("acme/chat", events=["trouble"]).wants(replace(event, tenant="acme"))


def test_samples_are_as_the_events() -> None:
    made = [
        trouble_events.handler_failing("crm", 5, circuit_open=True),
        trouble_events.handler_recovered("crm", 754),
        trouble_events.dead_letters("crm", 3),
        trouble_events.journal_used(120),
        trouble_events.inbox_filling(0.83),
        trouble_events.registration_lost("main", ["0003*210", "0003*211"]),
    ]
    for [event], sample in zip(made, sample_events("trouble"), strict=True):
        assert replace(sample, id=event.id, received=event.received) == event


async def test_event_that_cannot_be_read_holds_up_no_other(bench: Bench) -> None:
    bench.record(events=["trouble"])
    [event, *_] = trouble_events.registration_lost("main", ["0003*210"], "")
    bench.redis.hset(keys.UNANNOUNCED, mapping={"a": b'{"v":9}', "b": to_stored(event)})
    async with opened(bench.settings) as (inbox, _):
        assert await trouble_watch.tell(bench.settings, inbox) == 1
    assert not bench.redis.exists(keys.UNANNOUNCED)
    assert bench.redis.xlen(keys.quarantine()) == 1
