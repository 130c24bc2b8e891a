"""Deliveries with a real server: order, limits, filters, failures, timeouts, taking over."""

import asyncio
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from offhook import (
    Call,
    CallEvent,
    Context,
    EventType,
    ExtensionSettings,
    PermanentError,
    TemporaryError,
)
from offhook.errors import LeaseLost
from offhook.event import from_stored
from offhook.extensions import Extensions
from offhook.inbox import keys
from offhook.inbox.leases import Leases
from offhook.inbox.partition import Partition
from offhook.plugins import PluggedHandler
from offhook.settings import LookupSettings
from offhook.testing import sample_event
from tests.events import event
from tests.workers.serving.bench import STREAM, Bench, until
from workers.serving import partition_share, reader
from workers.serving.redeliveries import Redeliveries
from workers.serving.writer import Writer


async def test_calls_overlap_and_each_keeps_its_order(bench: Bench) -> None:
    await bench.append(*(event(f"call-{c}", n) for n in range(5) for c in range(4)))
    got: dict[str, list[str]] = {}
    together = most_together = 0

    async def handle(one: CallEvent, context: Context) -> None:
        nonlocal together, most_together
        together += 1
        most_together = max(most_together, together)
        await asyncio.sleep(0.002)
        got.setdefault(one.call_id, []).append(one.parameters["n"])
        together -= 1

    await bench.deliver(handle)
    assert got == {f"call-{c}": ["0", "1", "2", "3", "4"] for c in range(4)}
    assert most_together == 4
    state = await bench.state()
    assert (state.lag, state.in_flight, state.delivered) == (0, 0, 20)


async def test_latency_of_deliveries_is_counted(bench: Bench) -> None:
    old = replace(event("old"), received=datetime.now(UTC) - timedelta(days=1))
    ahead = replace(event("ahead"), received=datetime.now(UTC) + timedelta(hours=1))
    await bench.append(old, ahead, event("new"))

    async def handle(one: CallEvent, context: Context) -> None:
        if one.call_id == "new" and context.attempt == 1:
            raise TemporaryError("later")

    async with bench.serving(handle, retry=[1]):
        await bench.all_done()
        await until(lambda: (bench_latency(bench).get("inf"), len(bench_latency(bench))) == (1, 4))
    found = bench_latency(bench)
    assert sum(count for bound, count in found.items() if bound != "sum") == 3
    assert found["5"] == 1  # accepted by a clock that is ahead
    assert 86_400_000 < found["sum"] < 90_000_000


def bench_latency(bench: Bench) -> dict[str, int]:
    found: Any = bench.redis.hgetall(keys.latency(0))
    return {bound.decode(): int(count) for bound, count in found.items()}


async def test_concurrency_limits_the_calls_in_flight(bench: Bench) -> None:
    await bench.append(*(event(f"call-{c}") for c in range(9)))
    together: list[int] = [0]

    async def handle(one: CallEvent, context: Context) -> None:
        together.append(together[-1] + 1)
        await asyncio.sleep(0.001)
        together.append(together[-1] - 1)

    await bench.deliver(handle, concurrency=3)
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
async def test_filters_select_the_events(types: list[str], passed: list[str], bench: Bench) -> None:
    bench.change(settle=60.0)  # and no events follow from these
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        if "n" in one.parameters:
            got.append(one.parameters["n"])

    bench.plug(handle, events=types, extensions=["0003*2??"], direction="in", pbx=["main"])
    await bench.append(
        event("a", 1, extension="0003*210"),
        event("a", 2, extension="0003*310"),
        event("a", 3, extension="0003*211", type=EventType.HANGUP),
        event("a", 4, extension="0003*212", flow="OUT"),
        event("a", 5, extension="0003*212", pbx="other"),
        event("a", 6, extension="0003*213"),
        sample_event("call-ended", call_id="a", parameters={"n": "7"}),
        sample_event("call-ended", call_id="a", parameters={"n": "8"}, pbx="other"),
    )
    await bench.deliver()
    assert got == passed
    assert (await bench.state()).in_flight == 0


async def test_handlers_do_not_wait_for_each_other(bench: Bench) -> None:
    got: dict[str, list[str]] = {"fast": [], "slow": []}
    release = asyncio.Event()

    async def fast(one: CallEvent, context: Context) -> None:
        got["fast"].append(one.parameters["n"])

    async def slow(one: CallEvent, context: Context) -> None:
        await release.wait()
        got["slow"].append(one.parameters["n"])

    bench.plug(fast, "fast")
    bench.plug(slow, "slow", concurrency=1)
    await bench.append(*(event("a", n) for n in range(50)))
    async with bench.serving():
        await until(lambda: len(got["fast"]) == 50)
        assert got["slow"] == []
        release.set()
        await bench.finished()
    assert got["fast"] == got["slow"] == [str(n) for n in range(50)]


async def test_failed_delivery_holds_up_only_its_call(bench: Bench) -> None:
    await bench.append(event("a", 0), event("b", 0), event("a", 1), event("b", 1), event("a", 2))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        if one.call_id == "a":
            raise TemporaryError("the server is busy", retry_after=33)
        got.append(one.parameters["n"])

    await bench.deliver(handle)
    assert got == ["0", "1"]
    assert bench.lane("a") == ["0", "1", "2"]
    [(lane, due)] = bench.due().items()
    assert lane == "crm main/a"
    assert 3 < due <= 33
    state = await bench.state()
    assert (state.in_flight, state.failed, state.delivered) == (0, 1, 2)


async def test_later_events_of_a_parked_call_are_parked_behind(bench: Bench) -> None:
    await bench.append(event("a", 0))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        if one.call_id == "a":
            raise TemporaryError("no")
        got.append(one.call_id)

    async with bench.serving(handle):
        await until(lambda: bench.lane("a") == ["0"])
        await bench.append(event("a", 1), event("b", 0))
        await bench.finished()
    assert got == ["b"]
    assert bench.lane("a") == ["0", "1"]
    await bench.append(event("a", 2), event("b", 0))
    await bench.deliver()  # by a server that finds the lane parked
    assert got == ["b", "b"]
    assert bench.lane("a") == ["0", "1", "2"]
    assert (await bench.state()).failed == 1


async def test_permanent_error_is_a_dead_letter_at_once(bench: Bench) -> None:
    await bench.append(event("a", 0), event("a", 1))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        if one.parameters["n"] == "0":
            raise PermanentError("there is no such contact")
        got.append(one.parameters["n"])

    await bench.deliver(handle)
    assert got == ["1"]
    [job] = bench.dead()
    assert job.meta["error"] == "there is no such contact"
    assert "PermanentError" in job.latest_result().exc_string
    assert ((await bench.state()).dead, bench.parked()) == (1, 0)


async def test_bug_is_retried_and_recorded_with_its_type(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(one: CallEvent, context: Context) -> None:
        raise KeyError("contact")

    await bench.append(event("retried"))
    await bench.deliver(handle)
    assert bench.parked() == 1
    [record] = [each for each in caplog.records if "a bug in the handler" in each.message]
    assert record.exc_info is not None
    await bench.append(event("buried"))
    await bench.deliver(handle, retry=[])
    [job] = bench.dead()
    assert job.meta["error"] == "KeyError: 'contact'"


async def test_handler_that_cancels_itself_holds_up_only_its_call(bench: Bench) -> None:
    await bench.append(*(event(f"call-{n}") for n in range(4)), event("good"))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        if one.call_id != "good":
            raise asyncio.CancelledError
        got.append(one.call_id)

    await bench.deliver(handle, concurrency=2)
    assert got == ["good"]
    assert bench.parked() == 4


@pytest.mark.parametrize("waits", [True, False])
async def test_handler_that_cancels_its_task_holds_up_only_its_call(
    bench: Bench, *, waits: bool
) -> None:
    await bench.append(*(event(f"call-{n}", k) for n in range(4) for k in range(2)), event("good"))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        if one.call_id == "good":
            got.append(one.call_id)
            return
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if waits:
            await asyncio.sleep(60)

    await bench.deliver(handle, concurrency=2)
    assert got == ["good"]
    assert bench.parked() == (4 if waits else 0)


async def test_handler_without_retries_makes_dead_letters(bench: Bench) -> None:
    await bench.append(event())

    async def handle(one: CallEvent, context: Context) -> None:
        raise TemporaryError("no")

    await bench.deliver(handle, retry=[])
    assert len(bench.dead()) == 1
    assert bench.parked() == 0


async def test_slow_async_handler_is_cancelled_at_its_timeout(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.append(event("a"), event("b"))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        if one.call_id == "a":
            await asyncio.sleep(60)
        got.append(one.call_id)

    await bench.deliver(handle, timeout=0.1)
    assert got == ["b"]
    assert bench.lane("a") == ["0"]
    assert "delivery failed, will retry: did not finish within 0.1 s" in caplog.text


async def test_plain_function_runs_in_a_thread(bench: Bench) -> None:
    await bench.append(event("a"), event("b"))
    meet = threading.Barrier(2, timeout=30)  # both must run at the same time

    def handle(one: CallEvent, context: Context) -> None:
        meet.wait()

    await bench.deliver(handle)
    assert (await bench.state()).delivered == 2


async def test_hung_thread_delays_no_other_call(bench: Bench) -> None:
    await bench.append(event("hangs"), *(event(f"call-{n}") for n in range(5)))
    release = threading.Event()
    got: list[str] = []

    def handle(one: CallEvent, context: Context) -> None:
        if one.call_id == "hangs":
            release.wait(60)
        got.append(one.call_id)

    try:
        async with bench.serving(handle, timeout=1, concurrency=1):
            await bench.finished()
            # If the machine stands still for a second, others are late, too, and will be repeated.
            await until(lambda: {*got} == {f"call-{n}" for n in range(5)}, "others are delivered")
    finally:
        release.set()
    assert bench.lane("hangs") == ["0"]


async def test_pending_events_of_a_dead_server_come_first(bench: Bench) -> None:
    await bench.append(*(event("a", n) for n in range(2)), event("b"))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        if len(got) < 2:
            got.append(one.parameters["n"])
            await asyncio.sleep(60)
        got.append(one.parameters["n"])

    bench.plug(handle)
    server, task = await bench.start()
    await until(lambda: len(got) == 2 and bench.redis.hvals("offhook:{0}:behind"))
    await bench.kill(server, task)
    got.clear()
    await bench.append(event("a", 2))
    got += ["again", "again"]
    await bench.deliver()
    assert sorted(got[2:]) == ["0", "0", "1", "2"]
    assert [n for n in got[2:] if n != "0"] == ["1", "2"]
    assert (await bench.state()).in_flight == 0


async def test_events_deleted_while_they_were_pending_are_skipped(bench: Bench) -> None:
    await bench.append(*(event(f"call-{n}") for n in range(3)))

    async def hang(one: CallEvent, context: Context) -> None:
        await asyncio.sleep(60)

    async def handle(one: CallEvent, context: Context) -> None:
        raise AssertionError("there is nothing to deliver")

    bench.plug(hang)
    server, task = await bench.start()
    await until(lambda: bench.redis.hvals("offhook:{0}:behind"))
    await bench.kill(server, task)
    bench.redis.xtrim(STREAM, maxlen=0, approximate=False)
    await bench.deliver(handle)
    state = await bench.state()
    assert (state.lag, state.in_flight, state.failed) == (0, 0, 0)


async def test_mark_of_a_lost_response_delays_only_its_events(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client takes the marks, as a read does whose client gave up."""
    monkeypatch.setattr("workers.serving.reader.SWEEP_EVERY", 0.1)
    monkeypatch.setattr("workers.serving.reader.WAIT", 0.1)
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])

    async with bench.serving(handle):
        with bench.redis.pipeline() as pipeline:
            await bench.append(event("a", 0))
            await until(lambda: got == ["0"])
            found: Any = bench.redis.xrange(STREAM)
            pipeline.xadd(STREAM, found[0][1])
            pipeline.sadd("offhook:{0}:unfinished", "")
            pipeline.execute()
        await bench.finished()
    assert got == ["0", "0"]


async def test_event_in_flight_at_every_death_is_a_dead_letter(bench: Bench) -> None:
    await bench.append(event("poison", 0), event("good", 0))
    got: list[str] = []

    async def hang(one: CallEvent, context: Context) -> None:
        await asyncio.sleep(60)

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.call_id)

    bench.plug(hang, retry=[1])
    server, task = await bench.start()
    await until(lambda: any(b" " in each for each in hvals(bench)))
    await bench.kill(server, task)
    [poison, _] = [
        each for each in await bench.with_inbox(_first_events) if each.type == EventType.DIAL_IN
    ]
    bench.redis.hset(keys.DEATHS, f"crm {poison.id}", 2)
    await bench.deliver(handle, retry=[1])
    assert got == ["good"]
    [job] = bench.dead()
    assert job.meta["error"] == "the worker process died in each attempt"


async def _first_events(inbox: Any) -> list[CallEvent]:
    found = await inbox.redis.xrange(STREAM)
    return [from_stored(fields[b"e"]) for _, fields in found]


async def test_stop_finishes_deliveries_in_flight_only(bench: Bench) -> None:
    await bench.append(*(event("a", n) for n in range(4)))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        bench.server.stop()
        await asyncio.sleep(0.05)
        got.append(one.parameters["n"])

    async with bench.serving(handle):
        await until(lambda: got)
    assert got == ["0"]
    assert (await bench.state()).delivered == 1
    assert not bench.redis.exists("offhook:{0}:serving")

    async def go_on(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])

    await bench.deliver(go_on)
    assert got == ["0", "1", "2", "3"]


async def test_server_that_stops_drops_a_delivery_that_hangs(bench: Bench) -> None:
    begun = asyncio.Event()

    async def handle(one: CallEvent, context: Context) -> None:
        begun.set()
        await asyncio.sleep(20)

    bench.plug(handle)
    await bench.append(event("a", 0))
    server, task = await bench.start()
    await begun.wait()
    server.stop()
    await asyncio.sleep(0.05)
    assert not task.done()  # it waits for the delivery
    server.stop(at_once=True)
    async with asyncio.timeout(19):
        await task
    assert not bench.redis.exists(bench.key("serving"))
    assert bench.unfinished()


async def test_server_that_lost_a_lease_ends(bench: Bench) -> None:
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        bench.redis.set("offhook:{0}:serving", "another")
        got.append(one.parameters["n"])

    await bench.append(*(event("a", n) for n in range(4)))
    with pytest.raises(LeaseLost):
        async with bench.serving(handle) as server:
            await until(lambda: server._stop.is_set())
    bench.redis.delete("offhook:{0}:serving")
    assert (await bench.state()).delivered == 0


async def test_server_that_loses_its_lease_while_it_stops_ends(bench: Bench) -> None:
    async def handle(one: CallEvent, context: Context) -> None:
        bench.server.stop()
        bench.redis.set("offhook:{0}:serving", "another")
        await asyncio.sleep(0.05)

    await bench.append(event("a"))
    bench.plug(handle)
    server, task = await bench.start()
    done, _ = await asyncio.wait([task], timeout=30)
    if not done:
        await bench.kill(server, task)
    assert done
    assert isinstance(task.exception(), LeaseLost)


async def test_lease_that_is_taken_anew_while_it_is_renewed_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_share, "RENEW_EVERY", 0.1)
    renew, open_ = Leases.renew, Redeliveries.open
    taken_anew, renewed = asyncio.Event(), asyncio.Event()

    async def renew_later(self: Leases, tokens: Mapping[int, str]) -> list[int]:
        if tokens and not taken_anew.is_set():
            await bench.server.share.partitions[0].partition.lease.take_anew()
            taken_anew.set()
        found = await renew(self, tokens)
        if taken_anew.is_set():
            renewed.set()
        return found

    async def open_later(self: Redeliveries) -> None:
        await renewed.wait()
        await open_(self)

    monkeypatch.setattr(Leases, "renew", renew_later)
    monkeypatch.setattr(Redeliveries, "open", open_later)
    got = bench.record()
    await bench.append(event("a"))
    async with bench.serving():
        await until(lambda: got == ["0"], "the event is delivered")


async def test_server_that_loses_its_lease_while_it_takes_over_delivers_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ = Redeliveries.open

    async def then_lose_the_lease(self: Redeliveries) -> None:
        await open_(self)
        bench.redis.delete("offhook:{0}:serving")

    monkeypatch.setattr(Redeliveries, "open", then_lose_the_lease)
    got = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.id)

    await bench.append(event("a"))
    bench.plug(handle)
    server, task = await bench.start()
    done, _ = await asyncio.wait([task], timeout=30)
    if not done:
        await bench.kill(server, task)
    assert isinstance(task.exception(), LeaseLost)
    assert got == []


async def test_server_with_nothing_to_do_notices_that_its_last_flush_was_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "WAIT", 0.1)
    monkeypatch.setattr(reader, "SWEEP_EVERY", 0.2)

    async def handle(one: CallEvent, context: Context) -> None:
        """Deliver at once."""

    bench.plug(handle)
    server, task = await bench.start()
    await bench.append(event("a"))
    await bench.finished()
    bench.redis.delete("offhook:{0}:flushed")  # as a failover does
    done, _ = await asyncio.wait([task], timeout=30)
    if not done:
        await bench.kill(server, task)
    assert isinstance(task.exception(), LeaseLost)


async def test_sweep_reads_once_what_is_unfinished(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "WAIT", 0.05)
    monkeypatch.setattr(reader, "SWEEP_EVERY", 0.05)
    unfinished, check = Partition.unfinished, Writer.check
    reads, sweeps = [], []

    async def counted(self: Partition) -> list[str]:
        reads.append(self)
        return await unfinished(self)

    def swept(self: Writer) -> None:
        sweeps.append(self)
        check(self)

    monkeypatch.setattr(Partition, "unfinished", counted)
    monkeypatch.setattr(Writer, "check", swept)
    bench.record()
    async with bench.serving():
        await until(lambda: len(sweeps) >= 5, "it has swept")
        assert len(reads) <= len(sweeps) + 2  # one when it took over, and one of a sweep that began


async def test_handler_that_falls_behind_gets_every_event_once(bench: Bench) -> None:
    got: dict[str, list[str]] = {"crm": [], "slow": []}
    in_memory = []
    release = asyncio.Event()

    async def fast(one: CallEvent, context: Context) -> None:
        got["crm"].append(one.parameters["n"])

    async def slow(one: CallEvent, context: Context) -> None:
        await release.wait()
        got["slow"].append(one.parameters["n"])
        in_memory.append(bench.served(bench.server, "slow").outstanding)

    bench.plug(fast)
    bench.plug(slow, "slow")
    async with bench.serving() as server:
        bench.served(server, "slow").room = 4
        for at in range(0, 40, 10):
            await bench.append(*(event(f"call-{n % 3}", n) for n in range(at, at + 10)))
        await until(lambda: len(got["crm"]) == 40)
        assert bench.served(server, "slow").outstanding == 4
        release.set()
        await bench.finished()
        slow_one = bench.served(server, "slow")
        await until(
            lambda: (server.runners.outstanding, slow_one.outstanding) == (0, 0),
            "the server knows that all is done",
        )
    assert max(in_memory) == 4
    assert sorted(got["slow"], key=int) == sorted(got["crm"], key=int)
    for rest in range(3):
        of_a_call = [int(n) for n in got["slow"] if int(n) % 3 == rest]
        assert of_a_call == sorted(of_a_call)


async def test_first_event_and_calls_do_not_wait_for_handlers_with_enough(bench: Bench) -> None:
    got: dict[str, list[str]] = {"hangups": [], "calls": []}
    release = asyncio.Event()

    async def stuck(one: CallEvent, context: Context) -> None:
        await release.wait()

    async def hangups(one: CallEvent, context: Context) -> None:
        got["hangups"].append(one.call_id)

    async def calls(one: CallEvent, context: Context) -> None:
        got["calls"].append(one.call_id)

    bench.plug(stuck, "stuck", events=["dial-in"], concurrency=1)
    bench.plug(hangups, "hangups", events=["hangup"])
    bench.plug(calls, "calls", events=["call-started"])
    async with bench.serving() as server:
        bench.served(server, "stuck").room = 8
        await bench.append(*(event(f"call-{n}", n) for n in range(6)))
        await until(lambda: bench.served(server, "stuck").outstanding == 6)
        await bench.append(event("call-0", 6, type=EventType.HANGUP))
        await until(lambda: got["hangups"] == ["call-0"])
        await bench.append(*(event(f"call-{n}", n) for n in range(6, 50)))
        await until(lambda: len(got["calls"]) == 50)
        assert bench.served(server, "stuck").outstanding <= 8
        release.set()
        await bench.finished()


async def test_two_servers_share_the_partitions(redis_url: str) -> None:
    bench = Bench(redis_url, partitions=4)
    running: list[tuple[Any, asyncio.Task[None]]] = []

    async def handle(one: CallEvent, context: Context) -> None: ...

    def held(server: Any) -> int:
        holders = [bench.redis.get(bench.key("serving", n)) for n in range(4)]
        return len({each for each in holders if each})

    bench.plug(handle)
    running.append(await bench.start())
    await until(lambda: held(running[0][0]) == 4)
    running.append(await bench.start())
    servers = [server for server, _ in running]
    await until(lambda: [len(each.share.partitions) for each in servers] == [2, 2])
    servers[0].stop()
    await running[0][1]
    await until(lambda: len(servers[1].share.partitions) == 4)
    servers[1].stop()
    await running[1][1]
    bench.redis.close()


async def test_extension_settings_select_its_handlers(bench: Bench) -> None:
    await set_up(bench, "0003*211", ExtensionSettings(handlers=("chat",)))
    await set_up(bench, "0003*212", ExtensionSettings(handlers=("chat", "crm"), owner="jane"))
    await bench.append(*(event(f"call-{n}", extension=f"0003*{n}") for n in (210, 211, 212)))
    got: dict[str, str | None] = {}

    async def handle(one: CallEvent, context: Context) -> None:
        got[one.extension] = context.extension.owner

    await bench.deliver(handle)
    assert got == {"0003*210": None, "0003*212": "jane"}
    state = await bench.state()
    assert (state.in_flight, state.lag) == (0, 0)


async def test_running_server_notices_changed_extension_settings(bench: Bench) -> None:
    await bench.append(event("call-0"))
    got: dict[str, str | None] = {}

    async def handle(one: CallEvent, context: Context) -> None:
        got[one.call_id] = context.extension.owner

    async with bench.serving(handle) as server:
        await bench.finished()
        await set_up(bench, "0003*210", ExtensionSettings(owner="joe"))
        await until(lambda: server.extensions.get("main", "0003*210").owner == "joe")
        await bench.append(event("call-1"))
        await bench.finished()
        await set_up(bench, "0003*210", ExtensionSettings(handlers=()))
        await until(lambda: server.extensions.get("main", "0003*210").handlers == ())
        await bench.append(event("call-2"))
        await bench.finished()
    assert got == {"call-0": None, "call-1": "joe"}


async def test_a_server_reads_only_the_extensions_that_events_name(bench: Bench) -> None:
    many = {("main", f"0003*{n}"): ExtensionSettings(owner=str(n)) for n in range(200, 2200)}
    await bench.with_inbox(lambda inbox: Extensions(inbox.redis).change(many))
    await bench.append(event("call-1"))
    got: list[str | None] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(context.extension.owner)

    async with bench.serving(handle) as server:
        await bench.finished()
        changed = {**many, ("main", "0003*210"): ExtensionSettings(owner="joe")}
        await bench.with_inbox(lambda inbox: Extensions(inbox.redis).change(changed))
        await until(lambda: server.extensions.get("main", "0003*210").owner == "joe")
        assert ("main", "0003*211") not in server.extensions
    assert got == ["210"]


async def test_a_change_of_one_extension_decides_only_its_events_anew(bench: Bench) -> None:
    looked_at: list[str] = []

    class Counting(PluggedHandler):
        def wants(self, event: CallEvent, *of: Any) -> bool:
            if event.type is EventType.DIAL_IN:
                looked_at.append(event.extension)
            return super().wants(event, *of)

    bench.record()
    bench.handlers = [Counting(**vars(each)) for each in bench.handlers]
    numbers = [f"0003*{n}" for n in range(210, 221)]
    await set_up(bench, "0003*211", ExtensionSettings())
    async with bench.serving() as server:
        for owner in ("joe", "jane"):
            await bench.append(*(event(f"call-{n}", extension=n) for n in numbers))
            await bench.finished()
            await set_up(bench, "0003*210", ExtensionSettings(owner=owner))
            while server.extensions.get("main", "0003*210").owner != owner:
                await asyncio.sleep(0.01)
    assert looked_at == [*numbers, "0003*210"]


async def set_up(bench: Bench, extension: str, settings: ExtensionSettings) -> None:
    await bench.with_inbox(
        lambda inbox: Extensions(inbox.redis).change({("main", extension): settings})
    )


def with_contacts(bench: Bench, folder: Path) -> None:
    (folder / "contacts.csv").write_text("number,name\n+40 21 123 4567,Jane of Acme\n")
    contacts = LookupSettings(use="csv", options={"path": f"{folder}/contacts.csv"})
    bench.change(lookups={"contacts": contacts})


async def test_handler_gets_the_event_with_its_name(bench: Bench, tmp_path: Path) -> None:
    with_contacts(bench, tmp_path)
    sent = [sample_event("dial-in"), sample_event("call-started"), event("without-a-number")]
    got: dict[str, tuple[CallEvent, Call]] = {}

    async def handle(one: CallEvent, context: Context) -> None:
        assert context.event == one
        got[one.id] = (one, await context.call())

    bench.plug(handle, events=["raw", "calls"])
    await bench.append(*sent)
    await bench.deliver()
    for one, name in zip(sent, ("Jane of Acme", "Jane of Acme", None), strict=True):
        delivered, call = got[one.id]
        assert (delivered.caller.name, call.caller.name) == (name, name)
        assert delivered.parameters == one.parameters


async def test_parked_event_is_as_the_pbx_sent_it(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_contacts(bench, tmp_path)
    sent = sample_event("dial-in")
    await bench.append(sent)

    async def fail(one: CallEvent, context: Context) -> None:
        raise TemporaryError(f"{one.caller.name} is busy")

    await bench.deliver(fail)
    assert "Jane of Acme is busy" in caplog.text
    [lane] = bench.redis.keys("offhook:{0}:lane:crm:*")
    [stored] = bench.redis.lrange(lane, 0, -1)
    assert from_stored(stored) == sent


async def test_hanging_lookup_delays_only_its_event(bench: Bench) -> None:
    slow = LookupSettings(use="tests.offhook.lookups:Slow", timeout=0.5)
    bench.change(lookups={"slow": slow})
    await bench.append(sample_event("dial-in"), *(event(f"call-{n}") for n in range(5)))
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.call_id)

    await bench.deliver(handle)
    assert set(got[:5]) == {f"call-{n}" for n in range(5)}  # the event that it delays comes last
    state = await bench.state()
    assert (state.delivered, state.failed) == (6, 0)


def hvals(bench: Bench) -> list[bytes]:
    """Return the records of handlers that have not finished what was read."""
    found: Any = bench.redis.hvals("offhook:{0}:behind")
    return list(found)
