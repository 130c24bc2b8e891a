"""Redeliveries with a real server: attempts, order per call, dead letters, lost processes."""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from offhook import CallEvent, Context, ExtensionSettings, PermanentError, TemporaryError, queues
from offhook.errors import LeaseLost
from offhook.event import to_stored
from offhook.extensions import Extensions
from offhook.inbox import ParkedLanes, keys
from offhook.inbox.apart import move_apart
from offhook.inbox.due_times import DueTimes
from offhook.settings import LookupSettings
from offhook.testing import sample_event
from tests.events import event
from tests.workers.serving.bench import Bench, until
from tests.workers.serving.test_deliveries import with_contacts
from workers.delivery import circuit as circuits
from workers.delivery.attempt import wait_before
from workers.serving import attempts as attempting
from workers.serving import due, partition_server
from workers.serving import redeliveries as module
from workers.serving.partition_server import Server

FAR = 3600.0


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make redeliveries due after a hundredth of their waits."""
    wait = wait_before
    monkeypatch.setattr(attempting, "wait_before", lambda s, error: wait(s, error) / 100)


async def park(bench: Bench, *events: CallEvent, attempts: int = 1, due: float = 0) -> None:
    """Park these, of one call, as if the first had failed."""
    first = events[0]
    lane = bench.key(f"lane:crm:{first.call}")
    bench.redis.rpush(lane, *map(to_stored, events))
    bench.redis.hset(bench.key("parked"), f"crm {first.call}", first.id)
    bench.redis.hset(bench.key("attempts"), f"crm {first.call}", attempts)
    bench.redis.zadd(bench.key("due"), {f"crm {first.call}": (time.time() + due) * 1000})


def due_times(bench: Bench) -> list[float]:
    """When the redeliveries that have not begun are due, in seconds since 1970."""
    found: Any = bench.redis.zrange(bench.key("due"), 0, -1, withscores=True)
    return [score / 1000 for _, score in found]


async def no_room_taken(bench: Bench, server: Server) -> None:
    """Wait until the server has also heard that all is done."""
    await until(lambda: not server.runners.outstanding and not bench.served(server).outstanding)


async def test_lane_is_delivered_in_order_and_then_free(bench: Bench) -> None:
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        await asyncio.sleep(0.001)
        got.append(one.parameters["n"])

    bench.plug(handle)
    await park(bench, *(event("a", n) for n in range(4)))
    await bench.append(event("a", 4))
    async with bench.serving():
        await bench.all_done()
        await bench.append(event("a", 5))
        await bench.finished()
    assert got == ["0", "1", "2", "3", "4", "5"]
    assert bench.due() == {}
    assert bench.redis.keys("offhook:{0}:lane:*") == []
    assert not bench.redis.exists(bench.key("attempts"), bench.key("redelivering"))


async def test_lane_made_due_while_it_is_redelivered_is_redelivered_once(bench: Bench) -> None:
    got: list[str] = []
    go_on = asyncio.Event()

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])
        await go_on.wait()

    bench.plug(handle)
    await park(bench, *(event("a", n) for n in range(3)))
    async with bench.serving() as server:
        await until(lambda: got == ["0"], "it has begun")
        bench.redis.zadd(bench.key("due"), {f"crm {event('a').call}": 0})
        server.share.partitions[0].redeliveries.look()
        await until(lambda: not due_times(bench), "the other one has begun")
        go_on.set()
        await bench.all_done()
    assert got == ["0", "1", "2"]
    assert bench.redis.keys("offhook:{0}:lane:*") == []


async def test_failed_delivery_is_retried_after_its_wait_in_order(bench: Bench) -> None:
    got: list[tuple[str, int]] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append((one.parameters["n"], context.attempt))
        if context.attempt < 3:
            raise TemporaryError("not yet")

    bench.plug(handle, retry=[1, 1, 1])
    await bench.append(event("a", 0), event("a", 1))
    async with bench.serving():
        await bench.all_done()
    assert got == [(n, attempt) for n in "01" for attempt in (1, 2, 3)]
    state = await bench.state()
    assert (state.delivered, state.failed, state.dead) == (2, 4, 0)


async def test_events_that_come_during_a_redelivery_wait_behind_it(bench: Bench) -> None:
    got: list[str] = []
    release = asyncio.Event()

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])
        await release.wait()

    bench.plug(handle)
    await park(bench, event("a", 0))
    async with bench.serving():
        await until(lambda: got == ["0"])
        await bench.append(event("a", 1), event("a", 2))
        await bench.finished()
        assert got == ["0"]
        release.set()
        await bench.all_done()
    assert got == ["0", "1", "2"]


async def test_last_failed_attempt_makes_a_dead_letter(bench: Bench) -> None:
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        if one.parameters["n"] == "0":
            raise PermanentError("the first one never")
        got.append(one.parameters["n"])

    bench.plug(handle)
    first = event("a", 0)
    await park(bench, first, event("a", 1))
    async with bench.serving():
        await bench.all_done()
    assert got == ["1"]
    [job] = bench.dead()
    assert job.id == queues.dead_letter_id("crm", first.id)
    assert job.meta["error"] == "the first one never"
    assert job.args[1]["id"] == first.id
    assert "PermanentError" in job.latest_result().exc_string


async def test_failing_handler_gets_the_configured_attempts(bench: Bench) -> None:
    attempts: list[int] = []

    async def handle(one: CallEvent, context: Context) -> None:
        attempts.append(context.attempt)
        raise ValueError("this handler is broken")

    bench.plug(handle, retry=[1, 1])
    await bench.append(event("a", 0))
    async with bench.serving():
        await bench.all_done()
    assert attempts == [1, 2, 3]
    [job] = bench.dead()
    assert job.meta == job.meta | {"attempt": 3, "error": "ValueError: this handler is broken"}
    assert bench.parked() == 0


async def test_attempt_that_was_begun_and_not_made_does_not_count(bench: Bench) -> None:
    """With a limit of one, two of three redeliveries wait in the server that is killed."""
    attempts: list[int] = []

    async def hang(one: CallEvent, context: Context) -> None:
        attempts.append(context.attempt)
        await asyncio.sleep(60)

    def began() -> int:
        return int(bench.redis.scard(bench.key("redelivering")))

    bench.plug(hang, concurrency=1, retry=[1])
    for call in "abc":
        await park(bench, event(call))
    for kills in range(1, 4):
        server, task = await bench.start()
        await until(partial(lambda n: len(attempts) == n and began() == 3, kills))
        await bench.kill(server, task)

    async def handle(one: CallEvent, context: Context) -> None:
        attempts.append(context.attempt)

    bench.plug(handle, retry=[1])
    async with bench.serving():
        await bench.all_done()
    assert attempts == [2] * 6
    assert bench.dead() == []


async def test_redelivery_that_ended_its_process_each_time_is_a_dead_letter(bench: Bench) -> None:
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])

    bench.plug(handle, retry=[1, 1])
    poison = event("a", 0)
    await park(bench, poison, event("a", 1))
    bench.redis.hset("offhook:deaths", f"crm {poison.id}", 2)
    async with bench.serving():
        await bench.all_done()
    assert got == ["1"]
    [job] = bench.dead()
    assert job.meta["error"] == "the worker process died in each attempt"


async def test_dead_letter_of_a_killed_process_is_not_delivered(bench: Bench) -> None:
    async def handle(one: CallEvent, context: Context) -> None:
        raise AssertionError("it has its verdict")

    bench.plug(handle)
    one = event("a", 0)
    await park(bench, one)
    bench.redis.zrem(bench.key("due"), "crm main/a")
    bench.redis.sadd(bench.key("redelivering"), "crm main/a")
    queues.bury(bench.redis, "crm", one, attempt=6, error="no", trace="no")
    async with bench.serving():
        await bench.all_done()
    [job] = bench.dead()
    assert job.meta["error"] == "no"


async def test_redelivery_of_a_dead_server_is_made_again(bench: Bench) -> None:
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])
        if len(got) == 1:
            await asyncio.sleep(60)

    bench.plug(handle)
    await park(bench, event("a", 0), event("a", 1))
    server, task = await bench.start()
    await until(lambda: got == ["0"])
    await bench.kill(server, task)
    async with bench.serving():
        await bench.all_done()
    assert got == ["0", "0", "1"]


async def test_redeliveries_of_a_late_request_are_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request may reach the server after its client gave up: its answer is lost."""
    monkeypatch.setattr(module, "LOOK_EVERY", 0.2)
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])

    async with bench.serving(handle):
        await until(lambda: bench.redis.exists(bench.key("serving")))
        await asyncio.sleep(0.1)
        await park(bench, event("a", 0), due=FAR)
        bench.redis.zrem(bench.key("due"), "crm main/a")
        bench.redis.sadd(bench.key("redelivering"), "crm main/a")
        await bench.all_done()
    assert got == ["0"]


async def test_lost_answer_does_not_repeat_attempts_that_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, faults = DueTimes.begin, 0
    got: dict[str, list[str]] = {}

    async def unreliable(self: DueTimes, now: float, most: int) -> Any:
        nonlocal faults
        answer = await begin(self, now, most)
        if answer[1]:
            faults += 1
            if faults % 2:
                raise RedisConnectionError("the answer is lost")
        return answer

    async def handle(one: CallEvent, context: Context) -> None:
        got.setdefault(one.call_id, []).append(one.parameters["n"])

    monkeypatch.setattr(DueTimes, "begin", unreliable)
    bench.plug(handle)
    for call in range(20):
        due = call % 4 * 0.05
        await park(bench, *(event(f"{call}", n) for n in range(5)), due=due)
    async with bench.serving():
        await bench.all_done()
    assert faults > 1
    assert list(got.values()) == [["0", "1", "2", "3", "4"]] * 20


async def test_dead_letter_is_retried_after_events_in_memory(bench: Bench) -> None:
    """Otherwise two deliveries of a call overlap, and both work on its lane."""
    got: list[str] = []
    together = most = 0
    release = asyncio.Event()

    async def handle(one: CallEvent, context: Context) -> None:
        nonlocal together, most
        together += 1
        most = max(most, together)
        if one.parameters["n"] == "1":
            await release.wait()
        await asyncio.sleep(0.001)
        got.append(one.parameters["n"])
        together -= 1

    dead = event("a", 0)
    await bench.append(*(event("a", n) for n in range(1, 9)))
    async with bench.serving(handle):
        await until(lambda: together == 1)
        await bench.with_inbox(lambda inbox: ParkedLanes(inbox, "crm").rejoin([dead]))
        await asyncio.sleep(0.1)
        release.set()
        await bench.all_done()
        await bench.append(event("a", 9))
        await bench.finished()
    assert got == ["1", "2", "3", "4", "5", "6", "7", "8", "0", "9"]
    assert most == 1


async def test_open_circuit_prevents_attempts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuits, "WAITS", (FAR,))
    tried = 0

    async def handle(one: CallEvent, context: Context) -> None:
        nonlocal tried
        tried += 1
        raise TemporaryError("down")

    for n in range(20):
        await park(bench, event(f"call-{n}"), attempts=5)
    async with bench.serving(handle, concurrency=1) as server:
        bench.served(server).circuit._waits = (FAR,)
        await until(lambda: bench.served(server).circuit.state == "open")
        await asyncio.sleep(0.1)
    assert tried == 5
    assert len(bench.dead()) == 4  # those of the attempts before it opened
    assert bench.parked() == 16


async def test_parked_calls_of_a_target_that_is_down_take_no_room_of_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[str] = []

    async def down(one: CallEvent, context: Context) -> None:
        raise TemporaryError("down")

    async def works(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])

    bench.plug(down)
    bench.plug(works, "works")
    async with bench.serving() as server:
        bench.served(server).room = 10
        bench.served(server).circuit.open(FAR)
        for n in range(500):
            await park(bench, event(f"call-{n}"))
        bench.redis.zadd(bench.key("ready"), {"*": 0})
        await until(lambda: bench.served(server).outstanding == 10)
        await bench.append(event("b", 1))
        await until(lambda: got == ["1"])
        assert server.runners.outstanding <= 20
        bench.served(server).circuit.open(0)


async def test_handler_reads_on_after_its_redeliveries(bench: Bench) -> None:
    """Its room was taken by redeliveries when new events came."""
    got: list[str] = []
    release = asyncio.Event()

    async def handle(one: CallEvent, context: Context) -> None:
        await release.wait()
        got.append(one.parameters["n"])

    for n in range(6):
        await park(bench, event(f"parked-{n}", n))
    async with bench.serving(handle) as server:
        bench.served(server).room = 6
        await until(lambda: bench.served(server).outstanding == 6)
        await bench.append(event("new", 6))
        await asyncio.sleep(0.1)
        release.set()
        await bench.all_done()
        await no_room_taken(bench, server)
    assert sorted(got) == [str(n) for n in range(7)]


async def test_many_redeliveries_due_at_once_wait_for_room(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "POSTPONED_AT_ONCE", 1)  # slower than the slowest machine
    delivered = 0

    async def handle(one: CallEvent, context: Context) -> None:
        nonlocal delivered
        delivered += 1

    async with bench.serving(handle) as server:
        bench.served(server).room = 100
        for n in range(600):
            await park(bench, event(f"call-{n}"))
        bench.redis.zadd(bench.key("ready"), {"*": 0})

        def postponed() -> bool:
            return max(due_times(bench), default=0.0) > time.time() + 0.5

        await until(lambda: delivered == 600 or postponed())
        assert not postponed()
        await bench.all_done()


async def test_redeliveries_of_a_slow_handler_are_postponed(bench: Bench) -> None:
    release = asyncio.Event()

    async def handle(one: CallEvent, context: Context) -> None:
        await release.wait()

    bench.plug(handle)
    async with bench.serving() as server:
        bench.served(server).room = 20
        for n in range(40):
            await park(bench, event(f"call-{n}"))
        bench.redis.zadd(bench.key("ready"), {"*": 0})
        await until(lambda: len(due_times(bench)) == 20 and min(due_times(bench)) > time.time())
        assert bench.served(server).outstanding == 20
        release.set()
        await bench.all_done()


async def test_partition_that_is_given_back_leaves_no_room_taken(redis_url: str) -> None:
    bench = Bench(redis_url, partitions=2)

    async def handle(one: CallEvent, context: Context) -> None: ...

    bench.plug(handle)
    first, running = await bench.start()
    bench.served(first).circuit.open(FAR)
    await until(lambda: len(first.share.partitions) == 2)
    for n in range(6):
        await park(bench, event(f"call-{n}"))
    bench.redis.zadd(bench.key("ready"), {"*": 0})
    await until(lambda: bench.served(first).outstanding == 6)
    second, other = await bench.start()
    await until(lambda: len(first.share.partitions) == len(second.share.partitions) == 1)
    bench.served(first).circuit.open(0)
    bench.served(first).look()
    await bench.all_done()
    for server, task in ((first, running), (second, other)):
        await no_room_taken(bench, server)
        server.stop()
        await task
    bench.redis.close()


async def test_outage_costs_no_attempt(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    tried = 0
    attempts: list[int] = []

    async def handle(one: CallEvent, context: Context) -> None:
        nonlocal tried
        tried += 1
        if tried <= 12:
            raise TemporaryError("down")
        attempts.append(context.attempt)

    bench.plug(handle, concurrency=1, retry=[1, 1])
    await park(bench, event("a", 0), event("a", 1))
    async with bench.serving() as server:
        circuit = bench.served(server).circuit
        circuit._waits = (0.01,)
        circuit.open(0)
        await bench.all_done()
    assert attempts == [2, 1]
    assert bench.dead() == []


async def test_unknown_handler_keeps_its_lanes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "UNKNOWN_HANDLER_WAIT", FAR)
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])

    await park(bench, event("a", 0))
    async with bench.serving(handle, name="other"):
        await until(lambda: bench.due().get("crm main/a", 0) > 10)
    bench.redis.zadd(bench.key("due"), {"crm main/a": 0})
    bench.handlers.clear()
    async with bench.serving(handle):
        await bench.all_done()
    assert got == ["0"]


async def test_server_that_lost_its_lease_passes_no_redelivery_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = bench.record(process="own")
    await park(bench, event("a", 0))
    begin = DueTimes.begin

    async def then_lose_the_lease(self: DueTimes, now: float, most: int) -> Any:
        found = await begin(self, now, most)
        if found[1]:
            bench.redis.set(bench.key("serving"), "another")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(DueTimes, "begin", then_lose_the_lease)
        _, task = await bench.start()
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(task, 20)
    assert not bench.redis.exists(bench.key("due:crm"))  # it would be left when it is delivered
    bench.redis.delete(bench.key("serving"))
    async with bench.serving(), bench.serving(pool="crm"):
        await bench.all_done()
    assert got == ["0"]
    assert not bench.redis.exists(bench.key("due:crm"), bench.key("redelivering:crm"))


async def test_retried_dead_letter_is_delivered_though_its_lane_was_once_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_server, "WATCH_EVERY", 0.05)
    got = bench.record()
    one = event("a", 0)
    await park(bench, one)
    bench.redis.zrem(bench.key("due"), "crm main/a")
    bench.redis.sadd(bench.key("redelivering"), "crm main/a")  # as a process that died
    move_apart(bench.redis, "crm", "blocks")
    async with bench.serving():
        await until(lambda: bench.redis.exists(bench.key("due:crm")), "it is passed on")
        # `offhook dead retry` has put the event into its lane, and is about to delete the letter.
        queues.bury(bench.redis, "crm", one, attempt=1, error="failed", trace="")
        bench.redis.delete(keys.APART)
        await bench.all_done()
    assert got == ["0"]


async def test_redelivery_has_the_extension_and_ignores_filters(bench: Bench) -> None:
    got: list[str | None] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(context.extension.owner)

    settings = ExtensionSettings(handlers=("chat",), owner="jane")
    await bench.with_inbox(
        lambda inbox: Extensions(inbox.redis).change({("main", "0003*210"): settings})
    )
    await park(bench, event("a", 0))
    async with bench.serving(handle, events=["hangup"]):
        await bench.all_done()
    assert got == ["jane"]


async def test_handler_memory_is_shared_by_deliveries_and_redeliveries(bench: Bench) -> None:
    async def handle(one: CallEvent, context: Context) -> None:
        async with context.memory.lock("calls"):
            known = await context.memory.get("calls") or ""
            await context.memory.set("calls", known + one.parameters["n"], 60)

    bench.plug(handle)
    await park(bench, event("a", 1))
    async with bench.serving():
        await bench.all_done()
        await bench.append(event("b", 2))
        await bench.finished()
    assert bench.redis.get("offhook:memory:crm:calls") == b"12"


async def test_redelivered_event_has_the_name_from_a_lookup(bench: Bench, tmp_path: Path) -> None:
    with_contacts(bench, tmp_path)
    broken = LookupSettings(use="tests.offhook.lookups:Broken")
    gone = LookupSettings(use="no_such_module:Lookup")
    bench.change(lookups={"gone": gone, "broken": broken, **bench.settings.lookups})
    got: list[str | None] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.caller.name)

    await park(bench, sample_event("dial-in"))
    async with bench.serving(handle):
        await bench.all_done()
    assert got == ["Jane of Acme"]
    assert bench.dead() == []
