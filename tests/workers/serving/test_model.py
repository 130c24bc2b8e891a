"""Any sequence of steps, compared with a simple model: deliveries, failures, kills, replays,
retries, and handlers that move to a process of their own and come back.

For each handler and call, the model keeps the events that are due, in order. An attempt must be for
the first of them, or repeat one whose outcome a killed server may not have recorded. Which process
makes it does not matter.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any

import pytest
import redis as blocking

from offhook import CallEvent, Context, PermanentError, TemporaryError
from offhook.event import CALLBACKS, from_stored
from offhook.inbox import keys
from offhook.inbox.apart import Apart, move_apart
from offhook.inbox.replays import Replays
from offhook.operations import dead_letters
from tests.events import event
from tests.workers.serving.bench import Bench, until
from workers.delivery import circuit
from workers.serving import attempts, due, partition_share
from workers.serving import partition_server as server

CALLS = ("a", "b", "c", "d")  # in two partitions
HANDLERS = ("crm", "log")
PARTITIONS = 2
OUTCOMES = ("temporary", "permanent", "wait")
RETRY = [1.0, 1.0]  # so the third attempt is the last one

# Steps, and how often each is taken.
STEPS = {
    "accept": 4,
    "start": 3,
    "go_on": 4,
    "finish_all": 1,
    "stop": 1,
    "kill": 1,
    "move_out": 2,
    "start_apart": 2,
    "come_back": 2,
    "end_apart": 1,
    "retry_a_dead_letter": 1,
    "replay": 2,
}
WALKS, LENGTH = 8, 25


class Deliveries:
    """Two handlers, two partitions, up to two servers, and one for each handler that moved out."""

    def __init__(self, url: str, seed: int) -> None:
        blocking.Redis.from_url(url).flushall()
        self.seed = seed
        self.random = Random(seed)
        self.bench = Bench(url, PARTITIONS)
        for name in HANDLERS:
            self.bench.plug(self.attempt, name, retry=RETRY, concurrency=3)
        self.runner = asyncio.Runner()
        self.servers: list[tuple[server.Server, asyncio.Task[None]]] = []
        self.pools: dict[str, tuple[server.Server, asyncio.Task[None]]] = {}  # by handler
        self.due: dict[tuple[str, str], list[str]] = defaultdict(list)  # ids, by handler and call
        self.done: dict[str, set[str]] = {name: set() for name in HANDLERS}
        self.repeatable: dict[str, set[str]] = {name: set() for name in HANDLERS}
        self.owed: dict[str, set[str]] = {name: set() for name in HANDLERS}  # retried dead letters
        self.plans: dict[tuple[str, str], list[str]] = {}  # outcomes of attempts; then ok
        self.accepted: set[str] = set()
        self.delivered: dict[str, set[str]] = {name: set() for name in HANDLERS}
        self.running: set[tuple[str, str]] = set()  # handlers and calls
        self.violations: list[str] = []  # raised in a handler it would only be a failed attempt

    def walk(self) -> None:
        """Take steps at random, then settle."""
        steps = self.random.choices([*STEPS], [*STEPS.values()], k=LENGTH)
        taken = []
        try:
            for step in ("start", *steps):
                taken.append(step)
                getattr(self, step)()
                self.check()
            self.settle()
        except Exception as error:
            error.add_note(f"in walk {self.seed}, after {', '.join(taken)}")
            raise
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
            await asyncio.sleep(self.random.choice((0.002, 0.002, 0.1)))
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

    def accept(self) -> None:
        """Accept events, each with the planned outcomes of its attempts."""
        at = len(self.accepted)
        calls = self.random.choices(CALLS, k=self.random.randint(1, 8))
        events = [event(call, at + n) for n, call in enumerate(calls)]
        for one in events:
            self.accepted.add(one.id)
            for name in HANDLERS:
                self.due[name, one.call].append(one.id)
                plan = self.random.choices(OUTCOMES, k=self.random.randint(0, 4))
                self.plans[name, one.id] = plan if name == "crm" else []
        self.run(self.bench.append(*events))

    def start(self) -> None:
        """Start a server, unless two run."""
        if len(self.servers) < 2:
            self.servers.append(self.run(self.started()))

    async def started(self, pool: str = "") -> tuple[server.Server, "asyncio.Task[None]"]:
        started, task = await self.bench.start(pool)
        for handler in started.roster.handlers:
            handler.room = self.random.choice((2, 5, 1000))  # with little room it falls behind
        return started, task

    def go_on(self, most: float = 0.04) -> None:
        """Let the servers run for a while."""
        self.run(asyncio.sleep(self.random.uniform(0, most)))

    def finish_all(self) -> None:
        """Let servers of all handlers run until nothing is left to do."""
        if not self.servers:
            self.start()
        for name in HANDLERS:
            self.start_handler(name)
        self.run(until(lambda: not self.replays(), "replays are forgotten"))
        self.run(until(lambda: not self.unfinished(), "all is finished"))

    def stop(self) -> None:
        """Stop a server: it finishes what runs."""
        if self.servers:
            running, task = self.servers.pop(0)
            running.stop()
            self.run(asyncio.wait_for(task, 10))

    def kill(self) -> None:
        """Kill a server: what it has not written is repeated."""
        if self.servers:
            self.run(self.bench.kill(*self.servers.pop()))
            for name in HANDLERS:
                self.repeatable[name] |= self.done[name]

    def move_out(self) -> None:
        """A handler blocks, as its server notices or has been killed for, while events come."""
        name = self.random.choice(HANDLERS)
        if self.is_apart(name):
            return
        self.accept()
        self.go_on(0.02)  # so that some are on their way
        if self.servers and self.random.random() < 0.7:
            self.leave(name)
        else:
            move_apart(self.bench.redis, name, "blocks")
        self.accept()
        self.random.choice((self.go_on, self.start_apart))()

    def leave(self, name: str) -> None:
        async def go(running: server.Server) -> None:
            while not self.is_apart(name):  # it may not know yet that the handler is back
                running.guard.kept_waiting(self.bench.served(running, name), 1.0)
                await asyncio.sleep(0.01)

        self.run(asyncio.wait_for(go(self.servers[0][0]), 20))

    def start_apart(self) -> None:
        """Start the process of a handler that was moved out."""
        self.start_handler(self.random.choice(HANDLERS))

    def start_handler(self, name: str) -> None:
        if self.is_apart(name) and name not in self.pools:
            self.pools[name] = self.run(self.started(name))

    def come_back(self) -> None:
        """A handler behaves: its process lets the others serve it, while events come."""
        name = self.random.choice(HANDLERS)
        if name in self.pools:
            self.accept()
            self.go_on()
            self.bench.redis.hset(keys.APART, name, Apart("blocks", since=0).stored())
            running, task = self.pools.pop(name)
            self.run(asyncio.wait_for(task, 10))
            assert running.guard.returns
            self.accept()
            self.bench.redis.hdel(keys.APART, name)  # as `workers.serve`

    def end_apart(self) -> None:
        """Stop or kill the process of a handler that was moved out."""
        name = self.random.choice(HANDLERS)
        if name in self.pools:
            running, task = self.pools.pop(name)
            if self.random.random() < 0.5:
                self.run(self.bench.kill(running, task))
                self.repeatable[name] |= self.done[name]
            else:
                running.stop()
                self.run(asyncio.wait_for(task, 10))

    def retry_a_dead_letter(self) -> None:
        """Retry a dead letter: it is delivered again, at some time."""
        letters = self.dead()
        if not letters:
            return
        letter = self.random.choice(letters)
        if letter.event.id in self.due[letter.handler, letter.event.call]:
            return  # a killed server has not recorded that it is dead, or a replay delivers it
        self.owed[letter.handler].add(letter.event.id)
        self.repeatable[letter.handler].add(letter.event.id)
        self.with_inbox(lambda inbox: dead_letters.retry(inbox, self.bench.redis, [letter]))

    def replay(self) -> None:
        """Set a handler back while nothing is in flight."""
        name = self.random.choice(HANDLERS)
        in_flight = any(self.due.values()) or any(self.owed.values())
        if in_flight or self.unfinished() or not self.accepted:
            return
        if name in self.pools and not self.servers:
            return  # no server passes the replay on before later events
        stored: list[tuple[int, CallEvent]] = []
        for number in range(PARTITIONS):
            found: Any = self.bench.redis.xrange(self.bench.key("inbox", number))
            stored += [(int(p.split(b"-")[0]), from_stored(fields[b"e"])) for p, fields in found]
        stored = [(at, one) for at, one in stored if one.type in CALLBACKS]
        milliseconds, _ = self.random.choice(stored)
        for at, one in stored:
            if at >= milliseconds:
                self.due[name, one.call].append(one.id)
                self.done[name].discard(one.id)
                self.repeatable[name].discard(one.id)
        since = datetime.fromtimestamp(milliseconds / 1000, UTC)
        self.with_inbox(lambda inbox: Replays(inbox).set_back(name, since))
        if self.servers and (name in self.pools or not self.is_apart(name)):
            # It must not deliver later events before.
            self.run(until(lambda: not self.replays(), "the replay begins"))

    # What must hold

    def check(self) -> None:
        """Each attempt was due, and the servers run."""
        assert not self.violations
        for _, task in self.all_servers():
            if task.done():
                task.result()
                raise AssertionError("a server has ended")

    def settle(self) -> None:
        """Without faults, every due event is delivered or a dead letter."""
        self.finish_all()
        assert not self.violations
        assert not any(self.due.values()), f"never attempted: {dict(self.due)}"
        assert not any(self.owed.values()), f"never retried: {self.owed}"
        dead = self.dead()
        for name in HANDLERS:
            found = {letter.event.id for letter in dead if letter.handler == name}
            lost = self.accepted - self.delivered[name] - found
            assert not lost, f"neither delivered nor dead: {lost}"
        for running, _ in self.all_servers():
            self.run(until(partial(has_nothing, running), "the server knows that all is done"))

    # Helpers

    def run(self, work: Any) -> Any:
        async def go() -> Any:
            return await work

        return self.runner.run(go())

    def unfinished(self) -> list[str]:
        """What is not finished, or has not come to the process that is to serve it."""
        redis, left = self.bench.redis, []
        for number in range(PARTITIONS):
            pools = ["", *filter(self.is_apart, HANDLERS)]
            tables = [keys.unfinished(number, pool) for pool in pools]
            left += [key for key in (*tables, keys.parked(number)) if redis.exists(key)]
            for name in HANDLERS:
                owner: Any = redis.hget(keys.owners(number), name) or b""
                if owner.decode() != (name if self.is_apart(name) else ""):
                    left.append(f"{name} belongs to {owner!r}")
        return left

    def is_apart(self, name: str) -> bool:
        return bool(self.bench.redis.hexists(keys.APART, name))

    def all_servers(self) -> list[tuple[server.Server, "asyncio.Task[None]"]]:
        return [*self.servers, *self.pools.values()]

    async def end_all(self) -> None:
        for running, task in self.all_servers():
            await self.bench.kill(running, task)

    def replays(self) -> int:
        return sum(self.bench.redis.hlen(self.bench.key("replays", n)) for n in range(PARTITIONS))

    def dead(self) -> list[dead_letters.DeadLetter]:
        return list(dead_letters.find(self.bench.redis))

    def with_inbox(self, go: Callable[[Any], Awaitable[Any]]) -> Any:
        return self.run(self.bench.with_inbox(go))


def has_nothing(running: server.Server) -> bool:
    """Whether a server has no work in memory."""
    return running.runners.outstanding == 0 and not any(
        handler.outstanding or handler._running or handler._held or handler.lanes
        for handler in running.roster.handlers
    )


def test_promises_hold_for_any_sequence_of_steps(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = Random(0)
    monkeypatch.setattr(
        attempts, "wait_before", lambda seconds, error: waits.choice((0.004, 0.004, 0.2))
    )
    monkeypatch.setattr(partition_share, "RENEW_EVERY", 0.1)
    monkeypatch.setattr(server, "WATCH_EVERY", 0.05)
    monkeypatch.setattr(due, "AWAY_WAIT", 0.05)
    # Circuits only delay, and have their own tests.
    monkeypatch.setattr(circuit, "CONSECUTIVE", 1000)
    monkeypatch.setattr(circuit, "MOSTLY", 2.0)
    for seed in range(WALKS):
        Deliveries(redis_url, seed).walk()
