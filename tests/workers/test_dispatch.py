"""Dispatch with a real server: order, failures, filters, timeouts, stopping, taking over."""

import asyncio
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as blocking
from redis.exceptions import ResponseError

from offhook import (
    Call,
    CallEvent,
    Context,
    EventType,
    ExtensionSettings,
    PermanentError,
    TemporaryError,
    queues,
)
from offhook.connection import connect
from offhook.event import CALLBACKS, to_stored
from offhook.extensions import Extensions
from offhook.inbox import Cursor, CursorState, Entry, Inbox
from offhook.plugins import PluggedHandler
from offhook.settings import HandlerSettings, Settings
from offhook.testing import sample_event
from tests.conftest import SECRET
from tests.events import batch_of, event
from tests.workers.stopping import sigterm_after
from workers import dispatch as module
from workers.delivery import lease
from workers.delivery.circuit import Circuit

STREAM = "offhook:{0}:inbox"
Handle = Callable[[CallEvent, Context], Awaitable[None] | None]


class Bench:
    """One handler and one server, with dispatch in this process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.settings = Settings(secret=SECRET, redis_url=url)  # type: ignore[arg-type]
        self.redis = blocking.Redis.from_url(url)

    def append(self, *events: CallEvent) -> None:
        async def go(inbox: Inbox) -> None:
            await inbox.ensure_cursor("crm", "now")
            await inbox.append(batch_of(*events), [], 60)

        self._with_inbox(go)

    def dispatch(self, handle: Handle, *, is_async: bool = True, **policy: Any) -> None:
        settings = HandlerSettings(use="tests:none", **policy)
        events = frozenset(CALLBACKS) if settings.events is None else settings.events
        plugged = PluggedHandler("crm", settings, handle, is_async, events)
        asyncio.run(module.serve_cursor(self.settings, plugged, 0))

    def state(self) -> CursorState:
        states: list[CursorState] = []

        async def go(inbox: Inbox) -> None:
            states.append(await inbox.state("crm", 0))

        self._with_inbox(go)
        return states[0]

    def leave_pending(self, count: int) -> None:
        """Read events like a dispatch that is killed before it delivers them."""

        async def go(inbox: Inbox) -> None:
            cursor = Cursor(inbox, "crm", 0)
            await cursor.take()
            assert len(await cursor.read(count, 10)) == count
            await cursor.rest(even_if_behind=True)

        self._with_inbox(go)

    def jobs(self, registry: str) -> list[Any]:
        queue = queues.queue(queues.redeliver_queue("crm"), self.redis)
        ids = getattr(queue, registry).get_job_ids()
        return [queue.fetch_job(job_id) for job_id in ids]

    def due(self, job: Any) -> float:
        queue = queues.queue(queues.redeliver_queue("crm"), self.redis)
        return float(queue.scheduled_job_registry.get_scheduled_time(job).timestamp())

    def _with_inbox(self, go: Callable[[Inbox], Awaitable[None]]) -> None:
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


def test_calls_overlap_and_each_keeps_its_order(bench: Bench) -> None:
    bench.append(*(event(f"call-{c}", n) for n in range(5) for c in range(4)))
    got: dict[str, list[str]] = {}
    together = most_together = 0

    async def handle(one: CallEvent, context: Context) -> None:
        nonlocal together, most_together
        together += 1
        most_together = max(most_together, together)
        await asyncio.sleep(0.002)
        got.setdefault(one.call_id, []).append(one.parameters["n"])
        together -= 1

    bench.dispatch(handle)
    assert got == {f"call-{c}": ["0", "1", "2", "3", "4"] for c in range(4)}
    assert most_together == 4
    assert (bench.state().lag, bench.state().in_flight, bench.state().delivered) == (0, 0, 20)


def test_concurrency_limits_the_calls_in_flight(bench: Bench) -> None:
    bench.append(*(event(f"call-{c}") for c in range(9)))
    together: list[int] = [0]

    async def handle(one: CallEvent, context: Context) -> None:
        together.append(together[-1] + 1)
        await asyncio.sleep(0.001)
        together.append(together[-1] - 1)

    bench.dispatch(handle, concurrency=3)
    assert max(together) == 3


@pytest.mark.parametrize(
    ("types", "passed"),
    [
        (["dial-in"], ["1", "6"]),
        (["raw"], ["1", "3", "6"]),
        (["calls"], ["7"]),
        (["dial-in", "calls"], ["1", "6", "7"]),
    ],
)
def test_filters_select_the_events(types: list[str], passed: list[str], bench: Bench) -> None:
    bench.append(
        event("a", 1, extension="0003*210"),
        event("a", 2, extension="0003*310"),
        event("a", 3, extension="0003*211", type=EventType.HANGUP),
        event("a", 4, extension="0003*212", flow="OUT"),
        event("a", 5, extension="0003*212", pbx="other"),
        event("a", 6, extension="0003*213"),
        sample_event("call-ended", call_id="a", parameters={"n": "7"}),
        sample_event("call-ended", call_id="a", parameters={"n": "8"}, pbx="other"),
    )
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])

    bench.dispatch(handle, events=types, extensions=["0003*2??"], direction="in", pbx=["main"])
    assert got == passed
    assert bench.state().in_flight == 0


def test_failed_delivery_holds_up_only_its_call(bench: Bench) -> None:
    bench.append(event("a", 0), event("b", 0), event("a", 1), event("b", 1), event("a", 2))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        if one.call_id == "a":
            raise TemporaryError("the other side is busy", retry_after=33)
        got.append(one.parameters["n"])

    bench.dispatch(handle)
    assert got == ["0", "1"]
    [job] = bench.jobs("scheduled_job_registry")
    name, held = job.args
    assert (name, held["parameters"]["n"]) == ("crm", "0")
    assert job.meta == {"error": "the other side is busy"}
    due = bench.due(job) - time.time()
    assert 30 < due <= 34  # RQ counts whole seconds
    state = bench.state()
    assert (state.lanes, state.in_flight, state.failed) == (1, 0, 1)


def test_later_events_of_a_parked_call_are_parked_behind(bench: Bench) -> None:
    bench.append(event("a", 0))

    async def fail(one: CallEvent, context: Context) -> None:
        raise TemporaryError("no")

    bench.dispatch(fail)
    bench.append(event("a", 1), event("b", 0))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.call_id)

    bench.dispatch(handle)
    assert got == ["b"]
    with blocking.Redis.from_url(bench.url) as client:
        assert client.llen("offhook:{0}:lane:crm:main/a") == 2


def test_permanent_error_is_a_dead_letter_at_once(bench: Bench) -> None:
    bench.append(event("a", 0), event("a", 1))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        if one.parameters["n"] == "0":
            raise PermanentError("there is no such contact")
        got.append(one.parameters["n"])

    bench.dispatch(handle)
    assert got == ["1"]
    [job] = bench.jobs("failed_job_registry")
    assert job.meta["error"] == "there is no such contact"
    assert "PermanentError" in job.latest_result().exc_string
    assert (bench.state().dead, bench.state().lanes) == (1, 0)


def test_bug_is_retried_and_recorded_with_its_type(bench: Bench) -> None:
    bench.append(event())

    async def handle(one: CallEvent, context: Context) -> None:
        raise KeyError("contact")

    bench.dispatch(handle)
    [job] = bench.jobs("scheduled_job_registry")
    assert job.meta["error"] == "KeyError: 'contact'"


def test_handler_that_cancels_itself_holds_up_only_its_call(bench: Bench) -> None:
    bench.append(*(event(f"call-{n}") for n in range(4)), event("good"))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        if one.call_id != "good":
            raise asyncio.CancelledError
        got.append(one.call_id)

    with sigterm_after(5):
        bench.dispatch(handle, concurrency=2)
    assert got == ["good"]
    assert len(bench.jobs("scheduled_job_registry")) == 4


def test_handler_without_retries_makes_dead_letters(bench: Bench) -> None:
    bench.append(event())

    async def handle(one: CallEvent, context: Context) -> None:
        raise TemporaryError("no")

    bench.dispatch(handle, retry=[])
    assert len(bench.jobs("failed_job_registry")) == 1
    assert bench.jobs("scheduled_job_registry") == []


def test_slow_async_handler_is_cancelled_at_its_timeout(bench: Bench) -> None:
    bench.append(event("a"), event("b"))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        if one.call_id == "a":
            await asyncio.sleep(60)
        got.append(one.call_id)

    bench.dispatch(handle, timeout=0.1)
    assert got == ["b"]
    [job] = bench.jobs("scheduled_job_registry")
    assert job.meta["error"] == "did not finish within 0.1 s"


def test_plain_function_runs_in_a_thread(bench: Bench) -> None:
    bench.append(event("a"), event("b"))
    meet = threading.Barrier(2, timeout=5)  # both must run at the same time

    def handle(one: CallEvent, context: Context) -> None:
        meet.wait()

    bench.dispatch(handle, is_async=False)
    assert bench.state().delivered == 2


def test_hung_thread_makes_a_fresh_dispatch_take_over(bench: Bench) -> None:
    bench.append(event("a"))
    release = threading.Event()

    def handle(one: CallEvent, context: Context) -> None:
        release.wait(5)

    bench.dispatch(handle, is_async=False, timeout=0.05)
    release.set()
    assert len(bench.jobs("scheduled_job_registry")) == 1
    with blocking.Redis.from_url(bench.url) as client:
        assert client.llen("rq:queue:offhook.crm.0") == 1


def test_pending_events_of_a_dead_dispatch_come_first(bench: Bench) -> None:
    bench.append(*(event("a", n) for n in range(3)))
    bench.leave_pending(2)
    bench.append(event("a", 3))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])

    bench.dispatch(handle)
    assert got == ["0", "1", "2", "3"]
    assert bench.state().in_flight == 0


def test_events_deleted_while_a_handler_was_not_configured_are_skipped(
    bench: Bench,
) -> None:
    bench.append(*(event(f"call-{n}") for n in range(3)))
    bench.leave_pending(2)
    bench.redis.xtrim(
        STREAM, maxlen=0, approximate=False
    )  # as `Inbox.trim` does, in whole hundreds

    async def handle(one: CallEvent, context: Context) -> None:
        raise AssertionError("there is nothing to deliver")

    began = time.monotonic()
    with sigterm_after(5):
        bench.dispatch(handle)
    assert time.monotonic() - began < 3
    assert (bench.state().lag, bench.state().in_flight) == (0, 0)

    async def is_not_behind(inbox: Inbox) -> None:
        assert not await inbox.behind("crm", 0)

    bench._with_inbox(is_not_behind)


@pytest.mark.parametrize("late", ["while it reads", "while it delivers"])
def test_events_of_a_lost_response_keep_their_place(bench: Bench, late: str) -> None:
    """A read may reach the server after its client gave up, between other reads.

    For example, its connection stalled and its dispatch lost the lease.
    """
    bench.append(event("a", 0))
    order: list[str] = []

    def read_late() -> None:
        with bench.redis.pipeline() as pipeline:  # atomically, or the running dispatch is faster
            for number, one in enumerate((event("a", 1), event("b", 1), event("a", 2)), 2):
                pipeline.xadd(STREAM, {"e": to_stored(one), "n": number})
            pipeline.xreadgroup("crm", Cursor.CONSUMER, {STREAM: ">"}, count=2)
            pipeline.xadd(STREAM, {"e": to_stored(event("a", 3)), "n": 5})
            pipeline.set("offhook:{0}:last", 5)
            assert len(pipeline.execute()[3][0][1]) == 2

    async def handle(one: CallEvent, context: Context) -> None:
        order.append(f"{one.call_id}{one.parameters['n']}")
        if len(order) == 1:
            if late == "while it delivers":
                await asyncio.to_thread(read_late)
            else:
                asyncio.get_running_loop().call_later(
                    0.05, lambda: threading.Thread(target=read_late).start()
                )

    bench.dispatch(handle)
    assert sorted(order) == ["a0", "a1", "a2", "a3", "b1"]
    assert [one for one in order if one.startswith("a")] == ["a0", "a1", "a2", "a3"]
    assert (bench.state().lag, bench.state().in_flight) == (0, 0)


def test_last_events_of_a_lost_response_are_delivered(bench: Bench) -> None:
    bench.append(event("a", 0))
    order: list[str] = []

    def read_late() -> None:
        with bench.redis.pipeline() as pipeline:
            pipeline.xadd(STREAM, {"e": to_stored(event("a", 1)), "n": 2})
            pipeline.xreadgroup("crm", Cursor.CONSUMER, {STREAM: ">"}, count=2)
            pipeline.set("offhook:{0}:last", 2)
            assert len(pipeline.execute()[1][0][1]) == 1

    async def handle(one: CallEvent, context: Context) -> None:
        order.append(one.parameters["n"])
        if len(order) == 1:
            threading.Timer(0.05, read_late).start()

    bench.dispatch(handle)
    assert order == ["0", "1"]
    assert (bench.state().lag, bench.state().in_flight) == (0, 0)


def test_event_in_flight_at_every_death_gets_its_own_process(bench: Bench) -> None:
    unwanted = sample_event("call-started")
    bench.append(unwanted, event("poison", 0), event("good", 0))
    bench.leave_pending(2)

    async def read_again(inbox: Inbox) -> None:
        cursor = Cursor(inbox, "crm", 0)
        await cursor.take()
        for _ in range(module.MAX_READS):
            assert await cursor.read_pending(b"0-0", 10)
        await cursor.rest(even_if_behind=True)

    bench._with_inbox(read_again)
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.call_id)

    bench.dispatch(handle)
    assert got == ["good"]
    waiting = queues.queue(queues.redeliver_queue("crm"), bench.redis).jobs
    assert [job.args[1]["call_id"] for job in waiting] == ["poison"]


def test_sigterm_finishes_deliveries_in_flight_only(bench: Bench) -> None:
    bench.append(*(event("a", n) for n in range(4)))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
        got.append(one.parameters["n"])

    bench.dispatch(handle)
    assert got == ["0"]
    assert bench.state().delivered == 1

    async def go_on(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])

    bench.dispatch(go_on)
    assert got == ["0", "1", "2", "3"]


def test_open_circuit_holds_the_cursor_without_redeliveries(bench: Bench) -> None:
    bench.append(*(event(f"call-{n}") for n in range(100)))
    tried = 0

    async def handle(one: CallEvent, context: Context) -> None:
        nonlocal tried
        tried += 1
        raise TemporaryError("down")

    with sigterm_after(1.0):
        bench.dispatch(handle, concurrency=2)
    assert tried <= 7  # five in a row, and those in flight meanwhile
    parked = len(bench.jobs("scheduled_job_registry"))
    assert parked <= 4  # those before the fifth
    state = bench.state()
    assert state.circuit_open is not None
    assert state.in_flight + state.lag == 100 - parked


def test_failures_are_counted_across_dispatches(bench: Bench) -> None:
    async def handle(one: CallEvent, context: Context) -> None:
        raise TemporaryError("down")

    for n in range(4):  # with so little traffic that each event has a separate dispatch
        bench.append(event(f"call-{n}"))
        bench.dispatch(handle)
        assert bench.state().circuit_open is None
    bench.append(event("call-4"))
    with sigterm_after(1.0):
        bench.dispatch(handle)
    assert bench.state().circuit_open is not None
    assert (bench.state().lanes, bench.state().in_flight) == (4, 1)


def test_successful_delivery_resets_the_count_of_failures(bench: Bench) -> None:
    async def handle(one: CallEvent, context: Context) -> None:
        if one.call_id != "good":
            raise TemporaryError("down")

    for call in ("1", "2", "3", "4", "good", "5", "6", "7", "8"):
        bench.append(event(call))
        bench.dispatch(handle)
    assert bench.state().circuit_open is None
    assert bench.state().lanes == 8


def test_outage_costs_waiting_events_no_attempt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "Circuit", lambda: Circuit(waits=(0.01,)))
    bench.append(*(event(f"call-{c}", n) for n in range(3) for c in range(20)))
    got: dict[str, list[str]] = {}
    attempts: dict[str, list[int]] = defaultdict(list)
    tried = 0

    async def handle(one: CallEvent, context: Context) -> None:
        nonlocal tried
        tried += 1
        if tried < 60:
            attempts[one.id].append(context.attempt)
            raise TemporaryError("down")
        got.setdefault(one.call_id, []).append(one.parameters["n"])

    bench.dispatch(handle, retry=[1], concurrency=1)
    assert len(bench.jobs("scheduled_job_registry")) == 4  # those that failed before it opened
    assert bench.jobs("failed_job_registry") == []
    assert list(got.values()) == [["0", "1", "2"]] * 16
    assert len(attempts) == 20  # they took turns
    assert all(made == [*range(1, len(made) + 1)] for made in attempts.values())
    logged: dict[str, list[int]] = defaultdict(list)
    for record in caplog.records:
        if "delivery failed" in record.message:
            logged[vars(record)["event"]].append(vars(record)["attempt"])
    assert logged == attempts
    assert bench.state().circuit_open is None


def test_failures_of_single_calls_do_not_keep_the_circuit_open(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Circuit", lambda: Circuit(waits=(0.01,)))
    bench.append(*(event(f"bad-{n}") for n in range(8)), event("good"))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        if one.call_id != "good":
            raise TemporaryError("this one not")
        got.append(one.call_id)

    bench.dispatch(handle, concurrency=1)
    assert got == ["good"]
    assert (bench.state().lanes, bench.state().circuit_open) == (8, None)


def test_handler_that_blocks_the_event_loop_keeps_its_lease(bench: Bench) -> None:
    bench.append(event())
    renewed: list[int] = []

    async def handle(one: CallEvent, context: Context) -> None:
        with blocking.Redis.from_url(bench.url) as client:
            key = "offhook:{0}:awake:crm"
            client.pexpire(key, 2500)
            time.sleep(2.0)  # a renewal is due every 1.5 s
            renewed.append(int(client.pttl(key)))

    bench.dispatch(handle)
    assert renewed[0] > 2500


def test_second_dispatch_gives_way_to_a_running_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_MS", 100)  # how long it waits for the other's death
    bench.append(event())

    async def hold(inbox: Inbox) -> None:
        await Cursor(inbox, "crm", 0).take()

    bench._with_inbox(hold)

    async def handle(one: CallEvent, context: Context) -> None:
        raise AssertionError("two dispatches serve one cursor")

    bench.dispatch(handle)
    assert bench.state().lag == 1


def test_lost_consumer_group_is_recreated(bench: Bench) -> None:
    bench.append(event())
    with blocking.Redis.from_url(bench.url) as client:
        client.xgroup_destroy("offhook:{0}:inbox", "crm")
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.call_id)

    bench.dispatch(handle)
    assert got == ["call-1"]


def test_dispatch_that_cannot_acknowledge_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep a dispatch from reading on after a lost cancellation.

    On Python 3.11 that can happen in `asyncio.wait_for`, which redis-py uses to send. The dispatch
    would hold the lease without acknowledging its deliveries.
    """
    read = Cursor.read

    async def deaf(cursor: Cursor, count: int, block_ms: int) -> list[Entry]:
        reading = asyncio.ensure_future(read(cursor, count, block_ms))
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            return await reading

    async def handle(one: CallEvent, context: Context) -> None: ...

    monkeypatch.setattr(Cursor, "read", deaf)
    bench.append(event())
    bench.redis.set("offhook:{0}:counts:crm", "no hash")
    began = time.monotonic()
    with sigterm_after(5), pytest.raises(ResponseError, match="WRONGTYPE"):
        bench.dispatch(handle)
    assert time.monotonic() - began < 3


def set_up(bench: Bench, extension: str, settings: ExtensionSettings) -> None:
    async def go(inbox: Inbox) -> None:
        await Extensions(inbox.redis).change({("main", extension): settings})

    bench._with_inbox(go)


def test_extension_settings_select_its_handlers(bench: Bench) -> None:
    set_up(bench, "0003*211", ExtensionSettings(handlers=("chat",)))
    set_up(bench, "0003*212", ExtensionSettings(handlers=("chat", "crm"), owner="jane"))
    bench.append(*(event(f"call-{n}", extension=f"0003*{n}") for n in (210, 211, 212)))
    got: dict[str, str | None] = {}

    async def handle(one: CallEvent, context: Context) -> None:
        got[one.extension] = context.extension.owner

    bench.dispatch(handle)
    assert got == {"0003*210": None, "0003*212": "jane"}
    assert (bench.state().in_flight, bench.state().lag) == (0, 0)


def test_running_dispatch_notices_changed_extension_settings(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET", 3.0)
    bench.append(event("call-0"))
    got: dict[str, str | None] = {}

    async def handle(one: CallEvent, context: Context) -> None:
        got[one.call_id] = context.extension.owner

    def change() -> None:
        set_up(bench, "0003*210", ExtensionSettings(owner="joe"))
        time.sleep(1.5)
        bench.append(event("call-1"))
        set_up(bench, "0003*210", ExtensionSettings(handlers=()))
        time.sleep(1.5)
        bench.append(event("call-2"))

    timer = threading.Timer(0.5, change)
    timer.start()
    bench.dispatch(handle)
    timer.join()
    assert got == {"call-0": None, "call-1": "joe"}
    assert (bench.state().in_flight, bench.state().lag) == (0, 0)


def with_lookups(bench: Bench, **lookups: dict[str, Any]) -> None:
    bench.settings = Settings(secret=SECRET, redis_url=bench.url, lookups=lookups)  # type: ignore[arg-type]


def test_handler_gets_the_event_with_its_name(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "contacts.csv").write_text("number,name\n+40 21 123 4567,Jane of Acme\n")
    with_lookups(bench, contacts={"use": "csv", "options": {"path": f"{tmp_path}/contacts.csv"}})
    sent = [sample_event("dial-in"), sample_event("call-started"), event("without-a-number")]
    bench.append(*sent)
    got: dict[str, tuple[CallEvent, Call]] = {}

    async def handle(one: CallEvent, context: Context) -> None:
        assert context.event == one
        got[one.id] = (one, await context.call())

    bench.dispatch(handle, events=["raw", "calls"])
    for one, name in zip(sent, ("Jane of Acme", "Jane of Acme", None), strict=True):
        delivered, call = got[one.id]
        assert (delivered.caller.name, call.caller.name) == (name, name)
        assert delivered.parameters == one.parameters


def test_parked_event_is_as_the_pbx_sent_it(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "contacts.csv").write_text("number,name\n+40 21 123 4567,Jane of Acme\n")
    with_lookups(bench, contacts={"use": "csv", "options": {"path": f"{tmp_path}/contacts.csv"}})
    sent = sample_event("dial-in")
    bench.append(sent)

    async def fail(one: CallEvent, context: Context) -> None:
        raise TemporaryError(f"{one.caller.name} is busy")

    bench.dispatch(fail)
    [job] = bench.jobs("scheduled_job_registry")
    assert job.meta == {"error": "Jane of Acme is busy"}
    assert CallEvent.from_dict(job.args[1]) == sent


def test_hanging_lookup_delays_only_its_event(bench: Bench) -> None:
    with_lookups(bench, slow={"use": "tests.offhook.lookups:Slow", "timeout": 0.5})
    bench.append(sample_event("dial-in"), *(event(f"call-{n}") for n in range(5)))
    began, got = time.monotonic(), list[tuple[str, float]]()

    async def handle(one: CallEvent, context: Context) -> None:
        got.append((one.call_id, time.monotonic() - began))

    bench.dispatch(handle)
    assert {call for call, _ in got[:5]} == {f"call-{n}" for n in range(5)}
    assert got[4][1] < 0.5 <= got[5][1] < 1.5
    assert (bench.state().delivered, bench.state().failed) == (6, 0)
