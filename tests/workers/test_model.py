"""Any sequence of deliveries, failures, crashes, replays and retries, compared with a simple model.

For each call, the model keeps the events that are due, in order. An attempt must be for the first
of them, or repeat an earlier attempt whose outcome may not be recorded.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import redis as blocking
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from offhook import CallEvent, Context, PermanentError, TemporaryError, queues
from offhook.connection import connect
from offhook.errors import LeaseLost
from offhook.event import from_stored
from offhook.inbox import Cursor, CursorState, Inbox, ParkedLanes
from offhook.operations import dead_letters
from offhook.plugins import plug_handler
from offhook.settings import HandlerSettings, Settings
from tests.conftest import SECRET
from tests.events import batch_of, event
from tests.workers import scripted
from workers import dispatch, redeliver
from workers.delivery import circuit

CALLS = ("a", "b")
RETRY = [1.0, 1.0]  # so the third attempt is the last one
STREAM = "offhook:{0}:inbox"

events_to_come = strategies.tuples(
    strategies.sampled_from(CALLS),
    strategies.lists(strategies.sampled_from(["temporary", "permanent"]), max_size=3),
)


class Deliveries(RuleBasedStateMachine):
    """One handler on one partition."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.settings = Settings(
            secret=SECRET,  # type: ignore[arg-type]
            redis_url=self.url,
            handlers={"crm": HandlerSettings(use="tests.workers.scripted:handle", retry=RETRY)},
        )
        self.redis = blocking.Redis.from_url(self.url)
        self.redis.flushall()
        self.due: dict[str, list[str]] = defaultdict(list)  # call -> ids
        self.done: set[str] = set()  # delivered or dead, and no longer due
        self.plans: dict[str, list[str]] = {}  # id -> outcomes of its next attempts; then ok
        self.accepted: set[str] = set()
        self.delivered: set[str] = set()
        self.steal_at: int | None = None  # attempts after which the lease is lost
        self.violations: list[str] = []  # raised in a handler it would only be a failed attempt
        scripted.script.append(self.attempt)

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            scripted.script.pop()
            self.redis.close()

    # The handler

    def attempt(self, one: CallEvent, context: Context) -> None:
        call = one.call
        first = self.due[call][0] if self.due[call] else None
        if one.id != first and one.id not in self.done:
            self.violations.append(f"{one.id} of {call} before {first}")
        if self.steal_at is not None:
            self.steal_at -= 1
            if self.steal_at < 0:
                self.redis.set("offhook:{0}:awake:crm", "somebody else")
        plan = self.plans[one.id]
        outcome = plan.pop(0) if plan else "ok"
        if outcome == "temporary":
            if context.attempt > len(RETRY):
                self.finish(one)
            raise TemporaryError("later")
        self.finish(one)
        if outcome == "permanent":
            raise PermanentError("never")
        self.delivered.add(one.id)

    def finish(self, one: CallEvent) -> None:
        if one.id in self.due[one.call]:
            self.due[one.call].remove(one.id)
        self.done.add(one.id)

    # Steps

    @initialize()
    def begin(self) -> None:
        self.with_inbox(lambda inbox: inbox.ensure_cursor("crm", "now"))

    @rule(planned=strategies.lists(events_to_come, min_size=1, max_size=6))
    def accept(self, planned: list[tuple[str, list[str]]]) -> None:
        """Accept events, each with the planned outcomes of its attempts."""
        events = [event(call, n) for n, (call, _) in enumerate(planned)]
        self.with_inbox(lambda inbox: inbox.append(batch_of(*events), [], 60))
        for one, (_, plan) in zip(events, planned, strict=True):
            self.due[one.call].append(one.id)
            self.accepted.add(one.id)
            self.plans[one.id] = list(plan)

    @rule()
    def dispatch(self) -> None:
        """Run a dispatch until it is idle."""
        plugged = plug_handler("crm", self.settings.handlers["crm"])
        asyncio.run(dispatch.serve_cursor(self.settings, plugged, 0))

    @rule(after=strategies.integers(0, 4))
    def dispatch_that_loses_its_lease(self, after: int) -> None:
        """Deliver without recording it, as when the process is killed then."""
        self.steal_at = after
        try:
            self.dispatch()
        except LeaseLost:
            self.redis.delete("offhook:{0}:awake:crm")
        self.steal_at = None

    @rule(count=strategies.integers(1, 5))
    def dispatch_killed_after_reading(self, count: int) -> None:
        """Read events without delivering one, as when the process is killed then."""

        async def go(inbox: Inbox) -> None:
            cursor = Cursor(inbox, "crm", 0)
            await cursor.take()
            await cursor.read_pending(b"0-0", 1000)
            await cursor.read(count, 1)
            await cursor.rest(even_if_behind=True)

        self.with_inbox(go)

    @rule(killed=strategies.booleans())
    def redeliver(self, killed: bool) -> None:
        """Make an attempt for each parked lane; a killed one only counts."""

        async def go(inbox: Inbox) -> None:
            lanes = ParkedLanes(inbox, "crm")
            for lane in await lanes.parked(0):
                one = await lanes.head(0, lane)
                assert one is not None, f"lane {lane} is parked and empty"
                if killed:
                    # The last attempt must reach the handler, so that the model sees it.
                    made: Any = self.redis.hget("offhook:{0}:attempts:crm", lane)
                    if int(made or 0) < len(RETRY):
                        await lanes.begin_attempt(one)
                    continue
                await self.run_redelivery(one)

        self.with_inbox(go)

    async def run_redelivery(self, one: CallEvent) -> None:
        target = queues.queue(queues.redeliver_queue("crm"), self.redis)
        job_id = queues.redelivery_id("crm", one.id)
        assert job_id in queues.redeliveries(self.redis, "crm"), (
            "a parked lane without a redelivery"
        )
        job = target.fetch_job(job_id)
        assert job is not None
        try:
            await redeliver._redeliver(self.settings, job, "crm", one)
        except (TemporaryError, PermanentError):
            return  # RQ retries it, or it is a dead letter
        job.delete()

    @precondition(lambda self: self.due and any(self.dead()))
    @rule(choice=strategies.integers(0, 100))
    def retry_a_dead_letter(self, choice: int) -> None:
        """Retry a dead letter: it comes after the events that its call waits for."""
        letters = self.dead()
        letter = letters[choice % len(letters)]
        call = letter.event.call
        lane = self.lane(call)
        if letter.event.id in self.due[call] and letter.event.id not in lane:
            # A replay delivers it again, in its place. A retry delivers it before the replay's
            # earlier events, as requested, so there is no order to check.
            return
        if self.with_inbox(lambda inbox: dead_letters.retry(inbox, self.redis, letter)):
            if letter.event.id in lane:
                return
            waiting = [each for each in lane if each in self.due[call]]
            self.due[call].insert(len(waiting), letter.event.id)
            self.done.discard(letter.event.id)

    @precondition(lambda self: self.accepted)
    @rule(back=strategies.integers(0, 100))
    def replay(self, back: int) -> None:
        """Set the cursor back while nothing is in flight."""
        state: CursorState = self.with_inbox(lambda inbox: inbox.state("crm", 0))
        if state.lanes or state.in_flight:
            return
        entries: Any = self.redis.xrange(STREAM)
        milliseconds = int(entries[back % len(entries)][0].split(b"-")[0])
        since = datetime.fromtimestamp(milliseconds / 1000, UTC)
        if not self.with_inbox(lambda inbox: inbox.set_back("crm", since)):
            return
        self.due.clear()
        for position, fields in entries:
            if int(position.split(b"-")[0]) >= milliseconds:
                one = from_stored(fields[b"e"])
                self.due[one.call].append(one.id)
                self.done.discard(one.id)

    # Invariants

    @invariant()
    def each_attempt_was_due(self) -> None:
        assert not self.violations

    @invariant()
    def a_lane_holds_the_first_that_are_due(self) -> None:
        for call, due in self.due.items():
            lane = [each for each in self.lane(call) if each not in self.done]
            assert lane == due[: len(lane)], f"lane {lane}, due {due}"

    def settle(self) -> None:
        """Without faults, every due event is delivered or a dead letter."""
        for _ in range(30):
            self.dispatch()
            while self.redis.exists("offhook:{0}:parked:crm"):
                self.redeliver(killed=False)
            state: CursorState = self.with_inbox(lambda inbox: inbox.state("crm", 0))
            if not (state.lag or state.in_flight or state.lanes):
                break
        assert (state.lag, state.in_flight, state.lanes) == (0, 0, 0)
        assert not self.violations
        assert not any(self.due.values()), f"never attempted: {dict(self.due)}"
        lost = self.accepted - self.delivered - {letter.event.id for letter in self.dead()}
        assert not lost, f"neither delivered nor dead: {lost}"

    # Helpers

    def dead(self) -> list[dead_letters.DeadLetter]:
        return dead_letters.find(self.redis)

    def lane(self, call: str) -> list[str]:
        stored: Any = self.redis.lrange(f"offhook:{{0}}:lane:crm:{call}", 0, -1)
        return [from_stored(each).id for each in stored]

    def with_inbox(self, go: Callable[[Inbox], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            client = connect(self.url)
            try:
                return await go(Inbox(client, 1))
            finally:
                await client.aclose()

        return asyncio.run(run())


def test_promises_hold_for_any_sequence_of_steps(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "QUIET", 0.0)
    monkeypatch.setattr(dispatch, "BLOCK_MS", 8)
    monkeypatch.setattr(
        circuit, "CONSECUTIVE", 1000
    )  # circuits only delay, and have their own tests
    monkeypatch.setattr(circuit, "MOSTLY", 2.0)
    monkeypatch.setattr(Deliveries, "url", redis_url, raising=False)
    run_state_machine_as_test(
        Deliveries,
        settings=settings(
            max_examples=25,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
