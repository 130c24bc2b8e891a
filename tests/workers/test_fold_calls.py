"""Calls with a real server: events once, in order and in time, also when processes die."""

import asyncio
import multiprocessing
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis as blocking

from offhook import CallEvent, Context, EventType, ExtensionSettings, Kind, Outcome, queues
from offhook.calls import facts, fold
from offhook.connection import connect
from offhook.dialects.voipnow import read_event
from offhook.event import CALLBACKS, from_stored
from offhook.extensions import Extensions
from offhook.inbox import CALL_LOG, Inbox
from offhook.inbox.call_store import Calls
from offhook.inbox.scripts import script
from offhook.plugins import PluggedHandler
from offhook.settings import HandlerSettings, LookupSettings, Settings
from tests.conftest import SECRET
from tests.events import batch_of
from tests.receiver.test_event_store import Proxy
from tests.workers.stopping import sigterm_after
from workers import dispatch
from workers import fold_calls as module
from workers.scheduler import Scheduler

STREAM = "offhook:{0}:inbox"
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


class Bench:
    """The calls of one server, folded in this process."""

    def __init__(self, url: str) -> None:
        self.url = url
        plain = Settings(secret=SECRET, redis_url=url)  # type: ignore[arg-type]
        self.settings = plain.model_copy(update={"settle": 0.2, "settle_unanswered": 0.2})
        self.redis = blocking.Redis.from_url(url)
        self.with_inbox(lambda inbox: inbox.ensure_cursor(CALL_LOG, "now"))
        self.set_up(Kind.PHONE, "0003*210", "0003*211")

    def set_up(self, kind: Kind, *extensions: str) -> None:
        settings = {("main", each): ExtensionSettings(kind=kind) for each in extensions}
        self.with_inbox(lambda inbox: Extensions(inbox.redis).change(settings))

    def append(self, *events: CallEvent) -> None:
        async def go(inbox: Inbox) -> None:
            await inbox.append(batch_of(*events), [], 60)

        self.with_inbox(go)

    def keep(self) -> None:
        asyncio.run(module.keep_calls(self.settings, 0))

    def events(self) -> list[CallEvent]:
        found: Any = self.redis.xrange(STREAM)
        return [from_stored(fields[b"e"]) for _, fields in found]

    def told(self) -> list[str]:
        """Return the events of whole calls, in order."""
        return [f"{e.type} {e.call_id}" for e in self.events() if e.type not in CALLBACKS]

    def sizes(self) -> tuple[int, int, int]:
        """Return the number of calls that are listed, live, and settling."""
        names = ("calls", "live", "settling")
        listed, live, settling = (int(self.redis.zcard(f"offhook:{{0}}:{n}")) for n in names)
        return listed, live, settling

    def with_inbox(self, go: Callable[[Inbox], Awaitable[None]]) -> None:
        async def run() -> None:
            client = connect(self.url)
            await go(Inbox(client, 1))
            await client.aclose()

        asyncio.run(run())


@pytest.fixture
def bench(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(module, "QUIET", 0.2)
    monkeypatch.setattr(module, "BLOCK_MS", 200)
    made = Bench(redis_url)
    yield made
    made.redis.close()


def test_expired_call_with_an_open_settle_window_is_dropped(bench: Bench) -> None:
    bench.redis.zadd("offhook:{0}:settling", {"main/gone": time.time() * 1000 - 10_000})
    bench.keep()
    assert bench.sizes() == (0, 0, 0)


def test_events_of_a_call_are_in_its_lane(bench: Bench) -> None:
    bench.append(*answered())
    bench.keep()
    assert bench.told() == ["call-started c1", "call-answered c1", "call-ended c1"]
    [*_, ended] = bench.events()
    assert ended.summary is not None
    assert (ended.call, ended.extension) == ("main/c1", "0003*210")
    assert (ended.summary.outcome, ended.summary.complete) == (Outcome.ANSWERED, True)
    assert bench.sizes() == (1, 0, 0)
    bench.keep()  # read like any event, and not folded
    assert len(bench.told()) == 3


def test_start_is_announced_at_once_and_end_after_the_window(bench: Bench) -> None:
    bench.append(*missed())
    bench.keep()
    started, ended, missed_call = bench.events()[2:]
    assert [e.type for e in (started, ended, missed_call)] == [
        T.CALL_STARTED,
        T.CALL_ENDED,
        T.MISSED_CALL,
    ]
    window = timedelta(seconds=bench.settings.settle)
    assert ended.received - started.received >= window * 0.9
    assert ended.summary == missed_call.summary


def test_ongoing_call_is_not_closed(bench: Bench) -> None:
    bench.append(*answered()[:2])
    bench.keep()
    assert bench.told() == ["call-started c1", "call-answered c1"]
    assert bench.sizes() == (1, 1, 0)


def test_call_without_an_end_is_closed(bench: Bench) -> None:
    bench.append(*answered()[:2])
    bench.keep()
    bench.settings = bench.settings.model_copy(update={"call_timeout": 0.1})
    time.sleep(0.15)
    bench.keep()
    [*_, ended] = bench.events()
    assert bench.told()[2:] == ["call-ended c1"]
    assert ended.summary is not None
    assert ended.summary.closed_by == "silence"
    assert not ended.summary.complete
    assert bench.sizes() == (1, 0, 0)


def test_late_leg_corrects_the_call(bench: Bench) -> None:
    bench.append(*missed())
    bench.keep()
    bench.append(
        said("c1", T.DIAL_IN, "CALLING", "0003*211"),
        said("c1", T.ANSWER_IN, "ANSWER", "0003*211"),
        said("c1", T.HANGUP, "ANSWER", "0003*211"),
    )
    bench.keep()
    [*_, corrected] = bench.events()
    assert Counter(bench.told())["call-ended c1"] == 1
    assert corrected.type == T.CALL_CORRECTED
    assert corrected.summary is not None
    assert corrected.summary.outcome == Outcome.ANSWERED


def test_open_settle_window_survives_a_restart(bench: Bench) -> None:
    bench.append(*missed())

    async def die_early() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module.CallKeeper, "_end_windows", lambda self: _sigterm())
            await module.keep_calls(bench.settings, 0)

    asyncio.run(die_early())
    assert bench.told() == ["call-started c1"]
    assert bench.sizes() == (1, 1, 1)
    bench.keep()
    assert bench.told() == ["call-started c1", "call-ended c1", "missed-call c1"]


async def _sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.05)


def test_call_events_are_exactly_once_when_the_process_is_killed(bench: Bench) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    fork = multiprocessing.get_context("fork")
    names = [f"c{n}" for n in range(300)]
    kills = 0
    for at in range(0, len(names), 30):
        some = [e for name in names[at : at + 30] for e in rng.choice((answered, missed))(name)]
        bench.append(*some)
        process = fork.Process(target=bench.keep)
        process.start()
        process.join(rng.uniform(0.05, 0.5))
        if process.is_alive():
            kills += 1
            process.kill()
        process.join()
        # The lease of a process that is known to be dead.
        bench.redis.delete("offhook:{0}:awake:calls")
    assert kills
    bench.keep()
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


class LosesAnswers(Proxy):
    """A proxy that loses every third response to a write of call events."""

    script = b""
    saves = 0

    def _serve(self, ours: socket.socket) -> None:
        with closing(ours), socket.create_connection(("127.0.0.1", self._target)) as theirs:
            while request := ours.recv(1 << 20):
                theirs.sendall(request)
                answer = theirs.recv(1 << 20)
                if self.script in request and not answer.startswith(b"-NOSCRIPT"):
                    self.saves += 1
                    if self.saves % 3 == 0:
                        return
                ours.sendall(answer)


def test_call_events_are_exactly_once_when_responses_are_lost(bench: Bench) -> None:
    bench.append(*(each for n in range(5) for each in answered(f"c{n}")))
    port = int(bench.redis.get_connection_kwargs()["port"])
    with closing(LosesAnswers(port)) as proxy:
        proxy.script = bench.redis.script_load(script("save_calls")).encode()
        url = f"redis://127.0.0.1:{proxy.port}/0"
        bench.settings = bench.settings.model_copy(update={"redis_url": url})
        for n in range(5, 12):
            bench.append(*answered(f"c{n}"))
            bench.keep()
    assert proxy.saves > 6
    told = Counter(bench.told())
    assert set(told.values()) == {1}
    assert len(told) == 3 * 12


def test_calls_wait_on_a_full_server(bench: Bench) -> None:
    bench.append(*answered())
    used = int(bench.redis.info("memory")["used_memory"])
    bench.redis.config_set("maxmemory", int(used / 0.97))
    try:
        with sigterm_after(1.0):
            bench.keep()
        assert (bench.told(), bench.sizes()) == ([], (0, 0, 0))
        bench.redis.set("others", "have room")
    finally:
        bench.redis.config_set("maxmemory", 0)
    bench.keep()
    assert bench.told() == ["call-started c1", "call-answered c1", "call-ended c1"]


def test_kind_of_an_extension_is_used(bench: Bench) -> None:
    bench.set_up(Kind.QUEUE, "0003*400")
    bench.append(
        said("c1", T.DIAL_IN, "CALLING", "0003*400"),
        said("c1", T.HANGUP, "ANSWER", "0003*400"),
    )
    bench.keep()
    assert bench.told() == ["call-started c1", "call-ended c1", "missed-call c1"]


def test_event_that_cannot_be_folded_does_not_affect_other_calls(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:

    def broken(state: Any, event: CallEvent, *known: Any, **more: Any) -> Any:
        if event.call_id == "bad":
            raise ZeroDivisionError
        return fold(state, event, *known, **more)

    monkeypatch.setattr(module, "fold", broken)
    bench.append(*missed("bad"), *missed("good"))
    bench.keep()
    assert bench.told() == ["call-started good", "call-ended good", "missed-call good"]
    assert "cannot fold an event into its call" in caplog.text


def test_call_id_shared_by_many_calls_does_not_affect_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(facts, "MOST", 4)
    bench.append(*missed("check"), *missed("check"), *missed("check"), *missed("c2"))
    bench.keep()
    assert "call-ended c2" in bench.told()
    assert bench.told().count("call-ended check") == 1
    assert caplog.text.count("event left out of its call, which has too many events") == 2


def test_handler_gets_call_events_and_can_ask_for_a_call(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "QUIET", 0.2)
    got: list[tuple[str, str | None, bool]] = []

    async def handle(event: CallEvent, context: Context) -> None:
        call = await context.call()
        got.append((event.type, call.answered_by, call.closed_by is not None))

    bench.with_inbox(lambda inbox: inbox.ensure_cursor("crm", "now"))
    bench.append(*answered())
    bench.keep()
    policy = HandlerSettings(use="x", events=["hangup", "calls"])  # type: ignore[arg-type]
    asyncio.run(dispatch.serve_cursor(bench.settings, PluggedHandler.of("crm", policy, handle), 0))
    desk = "0003*210"
    assert got == [
        ("hangup", desk, True),  # as known at that time
        ("call-started", desk, False) if got[1][1] else ("call-started", None, False),
        ("call-answered", desk, False),
        ("call-ended", desk, True),
    ]


def test_call_for_a_handler_has_the_name_from_a_lookup(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "QUIET", 0.2)
    (tmp_path / "contacts.csv").write_text("number,name\n+44 20 7946 0100,Jane of Acme\n")
    contacts = LookupSettings(use="csv", options={"path": f"{tmp_path}/contacts.csv"})
    bench.settings = bench.settings.model_copy(update={"lookups": {"contacts": contacts}})
    got: list[tuple[str | None, bool, str | None]] = []

    async def handle(event: CallEvent, context: Context) -> None:
        for latest in (False, True):
            call = await context.call(latest=latest)
            got.append((event.caller.name, call.closed_by is not None, call.caller.name))

    bench.with_inbox(lambda inbox: inbox.ensure_cursor("crm", "now"))
    bench.append(*answered())
    bench.keep()
    policy = HandlerSettings(use="x", events=["dial-in"])  # type: ignore[arg-type]
    asyncio.run(dispatch.serve_cursor(bench.settings, PluggedHandler.of("crm", policy, handle), 0))
    assert got == [("Jane of Acme", True, "Jane of Acme")] * 2


def test_call_for_a_fast_handler_includes_its_event(bench: Bench) -> None:
    event = answered()[1]

    async def go(inbox: Inbox) -> None:
        call = await Calls(inbox).of(event, None, None)
        assert (call.answered_by, call.complete) == ("0003*210", False)

    bench.with_inbox(go)


def test_scheduler_has_silent_calls_closed(bench: Bench) -> None:
    def is_called() -> int:
        return queues.queue(queues.dispatch_queue(CALL_LOG, 0), bench.redis).count

    async def go(inbox: Inbox) -> None:
        scheduler = Scheduler(bench.settings, inbox, bench.redis)
        await scheduler.wake_calls()
        assert is_called() == 0
        await inbox.redis.zadd("offhook:{0}:settling", {"main/c1": 1})
        await scheduler.wake_calls()
        await scheduler.wake_calls()  # once
        assert is_called() == 1

    bench.with_inbox(go)


def test_calls_are_listed_with_their_events(bench: Bench) -> None:
    bench.append(*answered("c1"), *missed("c2"))
    bench.keep()

    async def go(inbox: Inbox) -> None:
        calls = Calls(inbox)
        day_ago = datetime.now(UTC) - timedelta(days=1)
        found = [kept async for kept in calls.since(day_ago)]
        assert [kept.name for kept in found] == ["main/c2", "main/c1"]
        types = [event.type for event in await calls.events(found[1])]
        assert types == [T.DIAL_IN, T.ANSWER_IN, T.HANGUP]
        await calls.forget(0, datetime.now(UTC) + timedelta(seconds=1))
        assert [kept async for kept in calls.since(day_ago)] == []

    bench.with_inbox(go)
