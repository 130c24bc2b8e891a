"""Any sequence of deliveries, failures, kills, replays and retries, compared with a simple model.

For each handler and call, the model keeps the events that are due, in order. An attempt must be for
the first of them, or repeat one whose outcome a killed server may not have recorded.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import redis as blocking
from hypothesis import HealthCheck, Phase, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from offhook import CallEvent, Context, PermanentError, TemporaryError
from offhook.event import CALLBACKS, from_stored
from offhook.operations import dead_letters
from tests.events import event
from tests.workers.serving.bench import Bench, until
from workers.delivery import circuit
from workers.serving import attempts
from workers.serving import partition_server as server

CALLS = ("a", "b", "c", "d")  # in two partitions
HANDLERS = ("crm", "log")
PARTITIONS = 2
RETRY = [1.0, 1.0]  # so the third attempt is the last one

events_to_come = strategies.tuples(
    strategies.sampled_from(CALLS),
    strategies.lists(strategies.sampled_from(["temporary", "permanent", "wait"]), max_size=4),
)


class Deliveries(RuleBasedStateMachine):
    """Two handlers, two partitions, and up to two servers."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        blocking.Redis.from_url(self.url).flushall()
        self.bench = Bench(self.url, PARTITIONS)
        for name in HANDLERS:
            self.bench.plug(self.attempt, name, retry=RETRY, concurrency=3)
        self.runner = asyncio.Runner()
        self.servers: list[tuple[server.Server, asyncio.Task[None]]] = []
        self.due: dict[tuple[str, str], list[str]] = defaultdict(list)  # ids, by handler and call
        self.done: dict[str, set[str]] = {name: set() for name in HANDLERS}
        self.repeatable: dict[str, set[str]] = {name: set() for name in HANDLERS}
        self.owed: dict[str, set[str]] = {name: set() for name in HANDLERS}  # retried dead letters
        self.plans: dict[tuple[str, str], list[str]] = {}  # outcomes of attempts; then ok
        self.accepted: set[str] = set()
        self.delivered: dict[str, set[str]] = {name: set() for name in HANDLERS}
        self.running: set[tuple[str, str]] = set()  # handlers and calls
        self.violations: list[str] = []  # raised in a handler it would only be a failed attempt

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self.run(self.end_all())
            self.runner.close()
            self.bench.redis.close()

    # The handlers

    async def attempt(self, one: CallEvent, context: Context) -> None:
        name = context.handler
        lane = (name, one.call)
        if lane in self.running:
            self.violations.append(f"two attempts of {lane} at once")
        self.running.add(lane)
        try:
            await self.outcome(one, name, context.attempt)
        finally:
            self.running.discard(lane)

    async def outcome(self, one: CallEvent, name: str, attempt: int) -> None:
        due = self.due[name, one.call]
        first = due[0] if due else None
        if one.id != first and one.id not in self.repeatable[name] | self.owed[name]:
            self.violations.append(f"{name} got {self.n(one)} of {one.call} before {first}")
        plan = self.plans[name, one.id]
        outcome = plan.pop(0) if plan else "ok"
        if outcome == "wait":
            await asyncio.sleep(0.002)
            outcome = plan.pop(0) if plan else "ok"
        if outcome == "temporary":
            if attempt > len(RETRY):
                self.finish(one, name)
            raise TemporaryError("later")
        self.finish(one, name)
        if outcome == "permanent":
            raise PermanentError("never")
        self.delivered[name].add(one.id)

    def finish(self, one: CallEvent, name: str) -> None:
        due = self.due[name, one.call]
        if one.id in due:
            due.remove(one.id)
        self.owed[name].discard(one.id)
        self.done[name].add(one.id)

    @staticmethod
    def n(one: CallEvent) -> str:
        return one.parameters["n"]

    # Steps

    @rule(planned=strategies.lists(events_to_come, min_size=1, max_size=8))
    def accept(self, planned: list[tuple[str, list[str]]]) -> None:
        """Accept events, each with the planned outcomes of its attempts."""
        at = len(self.accepted)
        events = [event(call, at + n) for n, (call, _) in enumerate(planned)]
        for one, (_, plan) in zip(events, planned, strict=True):
            self.accepted.add(one.id)
            for name in HANDLERS:
                self.due[name, one.call].append(one.id)
                self.plans[name, one.id] = list(plan) if name == "crm" else []
        self.run(self.bench.append(*events))

    @precondition(lambda self: len(self.servers) < 2)
    @rule(room=strategies.sampled_from([2, 5, 1000]))
    def start(self, room: int) -> None:
        """Start a server; with little room its handlers fall behind."""

        async def go() -> None:
            started, task = await self.bench.start()
            for handler in started.roster.handlers:
                handler.room = room
            self.servers.append((started, task))

        self.run(go())

    @precondition(lambda self: self.servers)
    @rule(milliseconds=strategies.integers(0, 40))
    def go_on(self, milliseconds: int) -> None:
        """Let the servers run for a while."""
        self.run(asyncio.sleep(milliseconds / 1000))

    @precondition(lambda self: self.servers)
    @rule()
    def finish_all(self) -> None:
        """Let the servers run until nothing is left to do."""
        self.run(self.bench.all_done())

    @precondition(lambda self: self.servers)
    @rule(which=strategies.integers(0, 1))
    def stop(self, which: int) -> None:
        """Stop a server: it finishes what runs."""
        running, task = self.servers.pop(which % len(self.servers))
        running.stop()
        self.run(asyncio.wait_for(task, 10))

    @precondition(lambda self: self.servers)
    @rule(which=strategies.integers(0, 1))
    def kill(self, which: int) -> None:
        """Kill a server: what it has not written is repeated."""
        running, task = self.servers.pop(which % len(self.servers))
        self.run(self.bench.kill(running, task))
        for name in HANDLERS:
            self.repeatable[name] |= self.done[name]

    @rule(choice=strategies.integers(0, 100))
    def retry_a_dead_letter(self, choice: int) -> None:
        """Retry a dead letter: it is delivered again, at some time."""
        letters = self.dead()
        if not letters:
            return
        letter = letters[choice % len(letters)]
        if letter.event.id in self.due[letter.handler, letter.event.call]:
            return  # a killed server has not recorded that it is dead, or a replay delivers it
        self.owed[letter.handler].add(letter.event.id)
        self.repeatable[letter.handler].add(letter.event.id)
        self.with_inbox(lambda inbox: dead_letters.retry(inbox, self.bench.redis, [letter]))

    @precondition(lambda self: self.accepted)
    @rule(back=strategies.integers(0, 100), name=strategies.sampled_from(HANDLERS))
    def replay(self, back: int, name: str) -> None:
        """Set a handler back while nothing is in flight."""
        in_flight = any(self.due.values()) or any(self.owed.values())
        if in_flight or self.bench.unfinished() or self.bench.parked():
            return
        stored: list[tuple[int, CallEvent]] = []
        for number in range(PARTITIONS):
            found: Any = self.bench.redis.xrange(self.bench.key("inbox", number))
            stored += [(int(p.split(b"-")[0]), from_stored(fields[b"e"])) for p, fields in found]
        stored = [(at, one) for at, one in stored if one.type in CALLBACKS]
        milliseconds = stored[back % len(stored)][0]
        for at, one in stored:
            if at >= milliseconds:
                self.due[name, one.call].append(one.id)
                self.done[name].discard(one.id)
                self.repeatable[name].discard(one.id)
        since = datetime.fromtimestamp(milliseconds / 1000, UTC)
        self.with_inbox(lambda inbox: inbox.set_back(name, since))
        if self.servers:  # it must not deliver later events before
            self.run(until(lambda: not self.replays(), "the replay begins"))

    # What must hold

    @invariant()
    def each_attempt_was_due(self) -> None:
        assert not self.violations

    @invariant()
    def servers_run(self) -> None:
        for _, task in self.servers:
            if task.done():
                task.result()
                raise AssertionError("a server has ended")

    def settle(self) -> None:
        """Without faults, every due event is delivered or a dead letter."""
        if not self.servers:
            self.start(1000)
        self.run(until(lambda: not self.replays(), "replays are forgotten"))
        self.run(self.bench.all_done())
        assert not self.violations
        assert not any(self.due.values()), f"never attempted: {dict(self.due)}"
        assert not any(self.owed.values()), f"never retried: {self.owed}"
        dead = self.dead()
        for name in HANDLERS:
            found = {letter.event.id for letter in dead if letter.handler == name}
            lost = self.accepted - self.delivered[name] - found
            assert not lost, f"neither delivered nor dead: {lost}"
        self.run(asyncio.sleep(0.01))
        for running, _ in self.servers:
            assert running.runners.outstanding == 0
            for handler in running.roster.handlers:
                assert (handler.outstanding, handler._running, len(handler._held)) == (0, 0, 0)
                assert not handler.lanes

    # Helpers

    def run(self, work: Any) -> Any:
        async def go() -> Any:
            return await work

        return self.runner.run(go())

    async def end_all(self) -> None:
        for running, task in self.servers:
            await self.bench.kill(running, task)

    def replays(self) -> int:
        return sum(self.bench.redis.hlen(self.bench.key("replays", n)) for n in range(PARTITIONS))

    def dead(self) -> list[dead_letters.DeadLetter]:
        return list(dead_letters.find(self.bench.redis))

    def with_inbox(self, go: Callable[[Any], Awaitable[Any]]) -> Any:
        return self.run(self.bench.with_inbox(go))


def test_promises_hold_for_any_sequence_of_steps(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "wait_before", lambda seconds, error: 0.004)
    monkeypatch.setattr(server, "RENEW_EVERY", 0.1)
    # Circuits only delay, and have their own tests.
    monkeypatch.setattr(circuit, "CONSECUTIVE", 1000)
    monkeypatch.setattr(circuit, "MOSTLY", 2.0)
    monkeypatch.setattr(Deliveries, "url", redis_url, raising=False)
    run_state_machine_as_test(
        Deliveries,
        settings=settings(
            max_examples=20,
            phases=[Phase.generate],
            stateful_step_count=15,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
