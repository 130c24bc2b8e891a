"""Calls that servers fold: events once, in order and in time, also when servers die."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from redis.exceptions import ConnectionError as RedisConnectionError

from offhook import CallEvent, Context, EventType, ExtensionSettings, Kind, Outcome, Party
from offhook.calls import facts, fold
from offhook.dialects.voipnow import read_event
from offhook.event import CALLBACKS, from_stored
from offhook.extensions import Extensions
from offhook.inbox import Inbox, keys
from offhook.inbox.call_store import Calls
from offhook.inbox.scripts import script
from offhook.settings import LookupSettings
from tests.nearly_full import nearly_full
from tests.receiver.test_event_store import Proxy
from tests.workers.folded import until_folded
from tests.workers.serving.bench import STREAM, until
from tests.workers.serving.bench import Bench as Plain
from workers.serving import folding as module
from workers.serving.settle_windows import SettleWindows

T = EventType


def said(call: str, type_: EventType, status: str, extension: str = "0003*210") -> CallEvent:
    """Return one callback of an incoming call."""
    return read_event(
        pbx="main",
        extension=extension,
        type=type_,
        parameters={
            "CallID": call,
            "CallFlow": "IN",
            "CallStatus": status,
            "CallerIDNum": "+442079460100",
            "CalledDID": "+442079460999",
            "CalledExtension": extension,
        },
    )


def answered(call: str = "c1") -> list[CallEvent]:
    return [
        said(call, T.DIAL_IN, "CALLING"),
        said(call, T.ANSWER_IN, "ANSWER"),
        said(call, T.HANGUP, "ANSWER"),
    ]


def missed(call: str = "c1") -> list[CallEvent]:
    return [said(call, T.DIAL_IN, "CALLING"), said(call, T.HANGUP, "NOANSWER")]


class Bench(Plain):
    """The calls of one inbox, folded by servers in this process."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.change(settle=0.2, settle_unanswered=0.2, handlers={})

    async def set_up(self, kind: Kind, *extensions: str) -> None:
        """Say what these extensions are."""
        settings = {("main", each): ExtensionSettings(kind=kind) for each in extensions}
        await self.with_inbox(lambda inbox: Extensions(inbox.redis).change(settings))

    async def keep(self) -> None:
        """Run a server until all is folded, delivered, and every settle window has ended."""
        async with self.serving():
            await self.kept()

    async def kept(self) -> None:
        await until_folded(self)

    def events(self) -> list[CallEvent]:
        found: Any = self.redis.xrange(STREAM)
        return [from_stored(fields[b"e"]) for _, fields in found]

    def told(self) -> list[str]:
        """Return the events of whole calls, in order."""
        return [f"{e.type} {e.call_id}" for e in self.events() if e.type not in CALLBACKS]

    def sizes(self) -> tuple[int, int, int]:
        """Return the number of calls that are listed, live, and settling."""
        names = ("calls", "live", "settling")
        listed, live, settling = (int(self.redis.zcard(self.key(name))) for name in names)
        return listed, live, settling


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    made = Bench(redis_url)
    asyncio.run(made.set_up(Kind.PHONE, "0003*210", "0003*211"))
    yield made
    made.redis.close()


async def test_expired_call_with_an_open_settle_window_is_dropped(bench: Bench) -> None:
    bench.redis.zadd("offhook:{0}:settling", {"main/gone": time.time() * 1000 - 10_000})
    await bench.keep()
    assert bench.sizes() == (0, 0, 0)


async def test_call_of_which_a_failover_lost_everything_is_folded_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, failed_over = SettleWindows.ended, asyncio.Event()

    def ended_later(self: SettleWindows, now: float) -> list[str]:
        return ended(self, now) if failed_over.is_set() else []

    monkeypatch.setattr(SettleWindows, "ended", ended_later)
    async with bench.serving():
        await bench.append(*answered())
        await until(lambda: bench.sizes() == (1, 1, 1), "the call settles")
        for name in ("call*", "index*", "live*", "settling*", "folded*", "saved*"):
            bench.redis.delete(*bench.redis.scan_iter(f"offhook:{{0}}:{name}"), "none")
        failed_over.set()
        await until(lambda: bench.sizes() == (1, 0, 0), "the call has ended")
    for term in ("extension=0003*210", "outcome=answered"):
        assert b"main/c1" in bench.redis.zrange(keys.index(0, term), 0, -1)


async def test_events_of_a_call_are_in_its_lane(bench: Bench) -> None:
    await bench.append(*answered())
    await bench.keep()
    assert bench.told() == ["call-started c1", "call-answered c1", "call-ended c1"]
    [*_, ended] = bench.events()
    assert ended.summary is not None
    assert (ended.call, ended.extension) == ("main/c1", "0003*210")
    assert (ended.summary.outcome, ended.summary.complete) == (Outcome.ANSWERED, True)
    assert bench.sizes() == (1, 0, 0)
    await bench.keep()  # read like any event, and not folded
    assert len(bench.told()) == 3


async def test_start_is_announced_at_once_and_end_after_the_window(bench: Bench) -> None:
    await bench.append(*missed())
    await bench.keep()
    started, ended, missed_call = bench.events()[2:]
    assert [e.type for e in (started, ended, missed_call)] == [
        T.CALL_STARTED,
        T.CALL_ENDED,
        T.MISSED_CALL,
    ]
    window = timedelta(seconds=bench.settings.settle)
    assert ended.received - started.received >= window * 0.9
    assert ended.summary == missed_call.summary


async def test_ongoing_call_is_not_closed(bench: Bench) -> None:
    await bench.append(*answered()[:2])
    await bench.keep()
    assert bench.told() == ["call-started c1", "call-answered c1"]
    assert bench.sizes() == (1, 1, 0)


async def test_call_without_an_end_is_closed(bench: Bench) -> None:
    await bench.append(*answered()[:2])
    await bench.keep()
    bench.change(call_timeout=0.1)
    await asyncio.sleep(0.15)
    async with bench.serving():
        await until(lambda: bench.sizes()[1] == 0)
        await bench.kept()
    [*_, ended] = bench.events()
    assert bench.told()[2:] == ["call-ended c1"]
    assert ended.summary is not None
    assert ended.summary.closed_by == "silence"
    assert not ended.summary.complete
    assert bench.sizes() == (1, 0, 0)


async def test_late_leg_corrects_the_call(bench: Bench) -> None:
    await bench.append(*missed())
    await bench.keep()
    await bench.append(
        said("c1", T.DIAL_IN, "CALLING", "0003*211"),
        said("c1", T.ANSWER_IN, "ANSWER", "0003*211"),
        said("c1", T.HANGUP, "ANSWER", "0003*211"),
    )
    await bench.keep()
    [*_, corrected] = bench.events()
    assert Counter(bench.told())["call-ended c1"] == 1
    assert corrected.type == T.CALL_CORRECTED
    assert corrected.summary is not None
    assert corrected.summary.outcome == Outcome.ANSWERED


class LosesAnswers(Proxy):
    """A proxy that loses every third response to a write of call events."""

    saves = 0

    def lose(self) -> bool:
        self.saves += 1
        return self.saves % 3 == 0


async def test_kind_of_an_extension_is_used(bench: Bench) -> None:
    await bench.set_up(Kind.QUEUE, "0003*400")
    await bench.append(
        said("c1", T.DIAL_IN, "CALLING", "0003*400"),
        said("c1", T.HANGUP, "ANSWER", "0003*400"),
    )
    await bench.keep()
    assert bench.told() == ["call-started c1", "call-ended c1", "missed-call c1"]


async def test_kind_is_used_of_an_extension_that_only_earlier_events_name(bench: Bench) -> None:
    """A new server knows the call only from Redis: the phone that forwarded it has no callbacks."""
    dial, hangup = missed()
    forwarded = Party(number=dial.caller.number, extension="0003*211")
    await bench.append(replace(dial, caller=forwarded))
    async with bench.serving():
        await until(lambda: bench.told() == ["call-started c1"])
    await bench.append(hangup)
    async with bench.serving():
        await until(lambda: "call-ended c1" in bench.told())


async def test_event_that_cannot_be_folded_does_not_affect_other_calls(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:

    def broken(state: Any, event: CallEvent, *known: Any, **more: Any) -> Any:
        if event.call_id == "bad":
            raise ZeroDivisionError
        return fold(state, event, *known, **more)

    monkeypatch.setattr(module, "fold", broken)
    await bench.append(*missed("bad"), *missed("good"))
    await bench.keep()
    assert bench.told() == ["call-started good", "call-ended good", "missed-call good"]
    assert "cannot fold an event into its call" in caplog.text


async def test_call_id_shared_by_many_calls_does_not_affect_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(facts, "MOST", 4)
    await bench.append(*missed("check"), *missed("check"), *missed("check"), *missed("c2"))
    await bench.keep()
    assert "call-ended c2" in bench.told()
    assert bench.told().count("call-ended check") == 1
    assert caplog.text.count("event left out of its call, which has too many events") == 2


async def test_call_for_a_fast_handler_includes_its_event(bench: Bench) -> None:
    event = answered()[1]

    async def go(inbox: Inbox) -> None:
        call = await Calls(inbox).of(event, None, None, 0)
        assert (call.answered_by, call.complete) == ("0003*210", False)

    await bench.with_inbox(go)


async def test_calls_are_listed_with_their_events(bench: Bench) -> None:
    await bench.append(*answered("c1"), *missed("c2"))
    await bench.keep()

    async def go(inbox: Inbox) -> None:
        calls = Calls(inbox)
        day_ago = datetime.now(UTC) - timedelta(days=1)
        found = [kept async for kept in calls.since(day_ago)]
        assert [kept.name for kept in found] == ["main/c2", "main/c1"]
        types = [event.type for event in await calls.events(found[1])]
        assert types == [T.DIAL_IN, T.ANSWER_IN, T.HANGUP]
        await calls.forget(0, {"": datetime.now(UTC) + timedelta(seconds=1)})
        assert [kept async for kept in calls.since(day_ago)] == []

    await bench.with_inbox(go)


async def test_open_settle_window_survives_a_restart(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.append(*missed())
    with monkeypatch.context() as patched:
        patched.setattr(SettleWindows, "ended", lambda self, now: [])
        async with bench.serving():
            await bench.finished()
    assert bench.told() == ["call-started c1"]
    assert bench.sizes() == (1, 1, 1)
    await bench.keep()
    assert bench.told() == ["call-started c1", "call-ended c1", "missed-call c1"]


async def test_open_settle_windows_survive_a_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis does not answer when the windows are read again after a first fault."""
    save, settling, faults = Calls.save, Calls.settling, 0

    async def no_save(self: Calls, *arguments: Any) -> None:
        nonlocal faults
        changes = [change for each in arguments[1] for change in each.changes]
        if faults == 0 and changes and changes[0].kept.name == "main/c2":
            faults += 1
            raise RedisConnectionError("no answer")
        await save(self, *arguments)

    async def no_settling(self: Calls, partition: int) -> dict[str, int]:
        nonlocal faults
        if faults == 1:
            faults += 1
            raise RedisConnectionError("no answer")
        return await settling(self, partition)

    monkeypatch.setattr(Calls, "save", no_save)
    monkeypatch.setattr(Calls, "settling", no_settling)
    bench.change(settle_unanswered=0.5)
    await bench.append(*missed("c1"))
    async with bench.serving():
        await bench.finished()
        await bench.append(*missed("c2"))
        await bench.kept()
    assert faults == 2
    assert sorted(each for each in bench.told() if "call-ended" in each) == [
        "call-ended c1",
        "call-ended c2",
    ]


async def test_call_events_are_exactly_once_when_servers_are_killed(bench: Bench) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    names = [f"c{n}" for n in range(150)]
    for at in range(0, len(names), 30):
        some = [e for name in names[at : at + 30] for e in rng.choice((answered, missed))(name)]
        await bench.append(*some)
        server, task = await bench.start()
        await asyncio.sleep(rng.uniform(0.01, 0.3))
        await bench.kill(server, task)
    await bench.keep()
    told = Counter(bench.told())
    assert set(told.values()) == {1}
    assert {name for name in names if told[f"call-started {name}"] != 1} == set()
    assert {name for name in names if told[f"call-ended {name}"] != 1} == set()
    ends = {e.call_id: e.summary for e in bench.events() if e.type == T.CALL_ENDED}
    for name in names:
        summary = ends[name]
        assert summary is not None
        was_answered = summary.outcome == Outcome.ANSWERED
        assert told[f"call-answered {name}"] == was_answered
        assert told[f"missed-call {name}"] == (not was_answered)


async def test_call_events_are_exactly_once_when_responses_are_lost(bench: Bench) -> None:
    await bench.append(*(each for n in range(5) for each in answered(f"c{n}")))
    port = int(bench.redis.get_connection_kwargs()["port"])
    with closing(LosesAnswers(port)) as proxy:
        proxy.script = bench.redis.script_load(script("save_calls")).encode()
        bench.change(redis_url=f"redis://127.0.0.1:{proxy.port}/0")
        async with bench.serving():
            for n in range(5, 12):
                await bench.append(*answered(f"c{n}"))
                await bench.finished()
            await bench.kept()
    assert proxy.saves > 6
    told = Counter(bench.told())
    assert set(told.values()) == {1}
    assert len(told) == 3 * 12


async def test_calls_wait_on_a_full_server(bench: Bench) -> None:
    await bench.append(*answered())
    with nearly_full(bench.redis):
        server, task = await bench.start()
        await asyncio.sleep(0.5)
        assert (bench.told(), bench.sizes()) == ([], (0, 0, 0))
    await until(lambda: bench.sizes()[0])
    await bench.kept()
    server.stop()
    await task
    assert bench.told() == ["call-started c1", "call-answered c1", "call-ended c1"]


async def test_handler_gets_call_events_and_can_ask_for_a_call(bench: Bench) -> None:
    got: list[tuple[str, str | None, bool]] = []

    async def handle(event: CallEvent, context: Context) -> None:
        call = await context.call()
        got.append((event.type, call.answered_by, call.closed_by is not None))

    bench.plug(handle, events=["hangup", "calls"])
    await bench.append(*answered())
    await bench.keep()
    desk = "0003*210"
    assert [each[0] for each in got] == ["hangup", "call-started", "call-answered", "call-ended"]
    assert got[0][1] == desk
    assert got[3][1:] == (desk, True)


async def test_call_for_a_handler_has_the_name_from_a_lookup(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "contacts.csv").write_text("number,name\n+44 20 7946 0100,Jane of Acme\n")
    contacts = LookupSettings(use="csv", options={"path": f"{tmp_path}/contacts.csv"})
    bench.change(lookups={"contacts": contacts})
    got: list[tuple[str | None, str | None]] = []

    async def handle(event: CallEvent, context: Context) -> None:
        for latest in (False, True):
            call = await context.call(latest=latest)
            got.append((event.caller.name, call.caller.name))

    bench.plug(handle, events=["dial-in"])
    await bench.append(*answered())
    await bench.keep()
    assert got == [("Jane of Acme", "Jane of Acme")] * 2
