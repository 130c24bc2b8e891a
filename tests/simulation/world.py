"""The world of a simulation: servers that crash, handlers that fail, a PBX that calls."""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from random import Random
from typing import Any, cast

from msgspec.structs import replace
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from offhook.dialects.voipnow import read_event
from offhook.errors import ConfigError, LeaseLost, PermanentError, TemporaryError
from offhook.event import CALLBACKS, CALLS, CallEvent, EventType
from offhook.handler import Context
from offhook.inbox import Inbox, keys
from offhook.inbox.leases import holder
from offhook.plugins import PluggedHandler
from offhook.settings import HandlerSettings, Settings, TenantLimits, TenantSettings
from receiver.event_store import EventStore
from receiver.group_commit import GroupCommit
from receiver.limits import Shares
from tests.simulation.clock import Clock
from tests.simulation.delays import Delays
from tests.simulation.earlier import leave
from tests.simulation.faults import Faults
from tests.simulation.loop import PROCESS, Loop, Process
from tests.simulation.model import Model, Violation
from tests.simulation.network import _NOBODY, Client, Network
from tests.simulation.receiving import Disk, append, call, receive
from tests.simulation.reloads import Generation, Version, check, keep_working, restore
from tests.simulation.server import Server as RedisServer
from workers.delivery.circuit import WAITS
from workers.delivery.steps import StepPage
from workers.serving.partition_server import WATCH_EVERY, Server

_EXPECTED = (LeaseLost, RedisError, OSError, ConfigError)  # what may end a server process
_PAGE = StepPage()
QUIET = 200.0  # seconds in which everything must be finished once the faults have ended
_LIMITS = TenantLimits(rate=1.5)  # 45 events at once
BURST = (0.0, 0.001, 0.002, 0.003, 0.004)  # seconds between events that come while one is read


@dataclass
class Plan:
    """What a simulation is about.

    Attributes:
        rate: probability of a fault at a command.
        failing: probability that an attempt fails, while there are faults.
        active: seconds of calls and faults.
        events: number of events of each call.
        gaps: seconds between them, one of these.
        room: most entries in memory for a handler; 0: as it is.
        raised: another number of partitions, which receivers that restart may have.
        distance: seconds more between processes and Redis, each way.
        migrates: the version before has left something.
        tenants: besides the operator; all have calls with the same CallIDs at the same time.
        pools: handlers may run in processes of their own.
        troubles: what else goes wrong: see `troubles.py`.
    """

    partitions: int = 1
    servers: int = 1
    handlers: dict[str, HandlerSettings] = field(default_factory=dict)
    calls: int = 2
    events: int = 3
    gaps: tuple[float, ...] = (0.0, 0.01, 0.5)
    active: float = 4.0
    rate: float = 0.0
    failing: float = 0.0
    slow: float = 0.0
    journal: bool = False
    room: int = 0
    raised: int = 0
    distance: float = 0.0
    migrates: bool = False
    tenants: tuple[str, ...] = ()
    pools: bool = False
    faults: dict[int, str] = field(default_factory=dict)
    troubles: tuple[str, ...] = ()

    @property
    def most_partitions(self) -> int:
        """Number of partitions that may ever have events."""
        return max(self.partitions, self.raised)


@cache
def _settings() -> Settings:
    """To make them takes as long as a tenth of a simulation."""
    return Settings(
        secret=cast(Any, "forty characters of a secret for simulations"), settle=1.0, region="GB"
    )


class World:
    """Everything in one simulation."""

    def __init__(
        self, seed: int, plan: Plan, clock: Clock, trace: Callable[[str], None] | None
    ) -> None:
        self.random = Random(seed)
        self.plan = plan
        self.clock = clock
        self._trace = trace
        self.loop = Loop(clock, lambda _: self.random.uniform(0.0001, 0.003))
        self.redis = RedisServer()
        self.partitions = plan.partitions  # as receivers that start now are configured
        self.tenants = ("", *plan.tenants)
        self.settings = self.configured(plan.handlers, plan.tenants)
        plugged = self._plugged(self.settings)
        self.model = Model(
            self.redis,
            self.loop.time,
            plan.most_partitions,
            {each.name: each.events for each in plugged},
            {each.name: len(each.policy.retry) + 1 for each in plugged},
            {name: set(self.settings.handlers_for(name)) for name in self.tenants},
            pools=plan.pools,
        )
        self.delays = Delays(self)
        self.faults = Faults(
            self.random,
            self.kill,
            self.delays.disturbed,
            trace and self.trace,
            plan.rate,
            plan.faults,
            distance=plan.distance,
        )
        self.network = Network(self.redis, self.faults, lambda: self._checked(self.model.observe))
        self.finding: BaseException | None = None
        self.quiet = False
        self.serving: dict[Process, Server] = {}
        self.paused: dict[str, float] = {}  # handlers, since when; only if servers must know it
        self.hanging: set[Process] = set()  # those whose deliveries take forever
        self.receiving: list[Process] = []
        self.disk = Disk(self)
        self.commits: dict[Process, GroupCommit] = {}
        self.shares: dict[Process, Shares] = {}  # what tenants may send
        self.flooding: set[str] = set()  # tenants that have sent too much
        self._ended: dict[Process, asyncio.Future[None]] = {}
        self._pids = 100
        self.reloading = "reload" in plan.troubles
        self.files = Version(0, self.settings)
        self.versions = 0  # number of them after the first
        self.generations: dict[Process, Generation] = {}
        self.supervised: list[Generation] = []
        self.keepers: list[Process] = []
        self.stores: dict[Process, EventStore] = {}

    def configured(
        self, handlers: Mapping[str, HandlerSettings], tenants: Iterable[str]
    ) -> Settings:
        """The configuration with these handlers and tenants."""
        return _settings().model_copy(
            update={
                "partitions": self.plan.partitions,
                "handlers": _handlers_of("", handlers),
                "tenants": {
                    name: TenantSettings(
                        extensions=[], handlers=_handlers_of(name, handlers), limits=_LIMITS
                    )
                    for name in tenants
                },
            }
        )

    def moment(self) -> str:
        """The time, in ISO 8601."""
        return datetime.fromtimestamp(self.clock.time(), UTC).isoformat()

    def trace(self, text: str) -> None:
        """Say what happens, if that is asked for."""
        if self._trace is not None:
            self._trace(f"{self.clock.elapsed - 1000:9.4f} {text}")

    # Processes

    def pid(self) -> int:
        process = PROCESS.get()
        return 1 if process is None else process.pid

    def process(self, name: str) -> Process:
        self._pids += 1
        process = Process(name, self._pids)
        self._ended[process] = self.loop.create_future()
        return process

    def ended(self, process: Process) -> "asyncio.Future[None]":
        """Is done when the process was killed."""
        return self._ended[process]

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        if process.dead:
            return
        self.trace(f"{process} is killed")
        process.dead = True
        self._forget(process)
        self.disk.killed(process)
        self.faults.count("kills")
        self.loop.call_soon(_done, self._ended[process], context=_NOBODY)

    def _forget(self, process: Process) -> None:
        for what in (self.serving, self.generations, self.commits):
            what.pop(process, None)

    def raise_unless_killed(self, task: "asyncio.Task[Any]", process: Process) -> None:
        """Note the error with which a process has ended by itself."""
        error = task.exception() if task.done() and not process.dead else None
        if error is not None:
            self.finding = self.finding or error

    def start(self, generation: "Generation", spawn: Callable[..., Any]) -> list[Any]:
        """Start the servers of a version."""
        runs = [
            self.keep(f"s{n}", partial(self.serve, generation), generation)
            for n in range(self.plan.servers)
        ]
        if self.plan.pools:
            runs += [self.serve_pool(name, generation) for name in self.plan.handlers]
        return [spawn(each) for each in runs]

    async def keep(
        self,
        name: str,
        run: Callable[[Process], Coroutine[Any, Any, None]],
        generation: "Generation | None" = None,
    ) -> None:
        """Start a process again whenever it has ended."""
        while generation is None or not generation.leaving:
            await self.life(name, run)
            await asyncio.sleep(self.random.uniform(0.05, 1.0))

    async def life(self, name: str, run: Callable[[Process], Coroutine[Any, Any, None]]) -> None:
        """Run a process until it ends."""
        process = self.process(name)
        self.model.lives += 1
        task = self.loop.spawn(process, run(process))
        await asyncio.wait([task, self._ended[process]], return_when=asyncio.FIRST_COMPLETED)
        self.delays.disturbed()
        self._forget(process)
        if process.frozen:
            self.loop.thaw(process)
        if task.done() and not process.dead:
            error = task.exception()
            self.trace(f"{process} has ended: {error!r}")
            if error is not None and not isinstance(error, _EXPECTED):
                self.finding = self.finding or error
            process.dead = True
            self.disk.killed(process)
        if self.random.random() < 0.7 or self.plan.faults:
            self._release(process)

    def _release(self, process: Process) -> None:
        """As the supervisor does: free the leases of a dead process."""
        prefix = holder(process.pid)
        for number in range(self.plan.most_partitions):
            for pool in ("", *self.plan.handlers):
                key = keys.serving(number, pool)
                token = self.redis.execute("GET", key)
                if token and token.decode().startswith(prefix):
                    self.redis.execute("DEL", key)

    def client(self, tries: int) -> Client:
        return Client(self.network, tries)

    async def serve(self, generation: "Generation", process: Process, pool: str = "") -> None:
        """As `workers.serve`."""
        if generation.leaving:
            return
        self._checked(lambda: check(generation.version))
        settings = generation.version.settings
        handlers = [
            each
            for each in self._plugged(settings)
            if each.policy.pool_of(each.name) == pool or each.name == pool
        ]
        inbox = Inbox(self.client(10), self.plan.partitions)
        server = Server(
            settings,
            handlers,
            inbox,
            self.client(0),
            cast(Any, None),
            cast(Any, None),
            lambda tenant: None,
            _PAGE,
            pool,
            1 if pool else self.plan.servers,
        )
        if self.plan.room:
            for handler in server.roster.handlers:
                handler.room = self.plan.room
        self.serving[process] = server
        self.generations[process] = generation
        await server.run()
        if server.guard.returns:
            await inbox.redis.hdel(keys.APART, pool)

    async def serve_pool(self, handler: str, generation: "Generation") -> None:
        """As the supervisor: run a process for a handler while that is needed."""
        policy = generation.version.settings.all_handlers.get(handler)
        while policy is not None and not generation.leaving:
            own = policy.pool_of(handler) == handler
            if own or self.redis.execute("HEXISTS", keys.APART, handler):
                await self.life(
                    f"pool-{handler}", lambda process: self.serve(generation, process, handler)
                )
            await asyncio.sleep(self.random.uniform(0.05, 0.5))

    # Handlers

    def _plugged(self, settings: Settings) -> list[PluggedHandler]:
        policies = settings.all_handlers
        return [
            PluggedHandler.of(name, policies[name], self._handler(name))
            for name in self.plan.handlers
            if name in policies
        ]

    def _handler(self, name: str) -> Any:
        async def handle(event: CallEvent, context: Context) -> None:
            about = f"{event.id} of {event.call} ({event.type}), attempt {context.attempt}"
            self.trace(f"{PROCESS.get()} {name} gets {about}")
            self._checked(lambda: self._begun(name, event, context.attempt))
            while PROCESS.get() in self.hanging:
                await asyncio.sleep(1.0)
            random = self.random
            if random.random() < 0.7:
                await asyncio.sleep(random.uniform(0.0, 0.02))
            if not self.quiet:
                if self.plan.slow and random.random() < self.plan.slow:
                    self.faults.count("slow")
                    self.delays.troubled(name, 5.0)
                    await asyncio.sleep(random.uniform(0.1, 4.0))
                if self.plan.failing and random.random() < self.plan.failing:
                    self.faults.count("failures")
                    self.delays.troubled(name, WAITS[-1])  # its circuit may open
                    raise random.choice(
                        (
                            TemporaryError("the target is down"),
                            TemporaryError("the target is down"),
                            TemporaryError("not yet", retry_after=1.5),
                            ValueError("a bug"),
                            PermanentError("never"),
                        )
                    )
            self.trace(f"{PROCESS.get()} {name} took {event.id}")
            self.model.succeeded(name, event)

        return handle

    def _begun(self, handler: str, event: CallEvent, attempt: int) -> None:
        if self.clock.elapsed > self.paused.get(handler, math.inf) + 2 * WATCH_EVERY:
            raise Violation(f"{handler} is paused and gets {event.id} of {event.call}")
        self.model.begun(handler, event, attempt)
        if self.model.made[handler, event.id] == 1:
            self.delays.begun(handler, event)

    def bury(self, rq: object, handler: str, event: CallEvent, **_: object) -> None:
        """In place of `queues.bury`."""
        kind = self.faults.work()
        process = PROCESS.get()
        assert process is not None
        if self.faults.down:
            kind = kind or "lost"
        if kind == "crash before":
            self.kill(process)
        elif kind != "lost":
            self.trace(f"{process} buries {event.id} of {event.call} for {handler}")
            self.model.buried(handler, event)
            if kind == "crash after":
                self.kill(process)
        if kind in ("lost", "unanswered"):
            raise RedisConnectionError("Connection closed by server.")

    def letters(self, process: Process, change: Callable[[], None]) -> None:
        """Change the dead letters in one step, in the process of a command or the scheduler."""
        kind = self.faults.work()
        if kind == "crash before":
            self.kill(process)
        elif not process.dead:
            change()
            if kind:
                self.kill(process)

    def is_dead(self, rq: object, handler: str, event_id: str) -> bool:
        """In place of `queues.is_dead`."""
        if self.faults.down or self.faults.work() in ("lost", "unanswered"):
            raise RedisConnectionError("Connection closed by server.")
        return (handler, event_id) in self.model.dead

    def _checked(self, check: Callable[[], None]) -> None:
        try:
            check()
        except Violation as violation:
            self.finding = self.finding or violation

    # The PBX

    def event(self, call: str, n: int, kind: EventType, tenant: str = "") -> CallEvent:
        made = read_event(
            pbx="main",
            extension="0003*210",
            type=kind,
            parameters={"CallID": call, "CallFlow": "IN", "CallerIDNum": "0123", "n": str(n)},
            received=datetime.fromtimestamp(self.clock.time(), UTC),
        )
        return replace(made, tenant=tenant)

    # The run

    async def run(self) -> None:
        """Run the simulation.

        Raises:
            Violation: a promise was broken.
        """
        from tests.simulation.troubles import make

        logging.disable(logging.CRITICAL)
        if self.plan.migrates:
            leave(self)
            self.delays.disturbed()
        if self.reloading:
            tasks = [asyncio.create_task(keep_working(self))]
        else:
            tasks = self.start(Generation(self.files), asyncio.create_task)
        tasks += [asyncio.create_task(self._receive())]
        tasks += [asyncio.create_task(make(self, name)) for name in self.plan.troubles]
        await self._wait(self.plan.active)
        self.trace("quiet")
        self.quiet = True
        self.clock.correct()
        self.model.spares += 2
        self.faults.rate = 0.0
        if self.reloading:
            tasks.append(asyncio.create_task(restore(self)))
        until = self.clock.elapsed + QUIET
        while True:
            self.paused.clear()
            self.redis.execute("DEL", keys.PAUSED)  # a failover may have brought a pause back
            await self._wait(0.25)
            missing = self.model.missing()
            if self.reloading:
                missing.append("not all processes run the last version")
            if not missing:
                break
            if self.clock.elapsed > until:
                raise Violation(f"not finished after {QUIET:g} s: " + "; ".join(missing[:5]))
        self.model.check_order()
        self.model.check_index()
        if "full" not in self.plan.troubles and not self.plan.migrates:
            self.model.check_record()
        for task in tasks:
            if task.done() and not task.cancelled() and task.exception():
                raise task.exception()  # type: ignore[misc]

    async def _receive(self) -> None:
        if self.plan.journal:
            calls = [
                asyncio.create_task(call(self, f"c{each}", tenant))
                for each in range(self.plan.calls)
                for tenant in self.tenants
            ]
            await self.keep("receiver", lambda process: receive(self, process))
            await asyncio.gather(*calls)
        while not self.quiet:
            process = self.process("receiver")
            self.receiving = [process]
            self.loop.spawn(process, append(self, process))
            await self._ended[process]
            self.receiving = []
            await asyncio.sleep(0.2)

    async def _wait(self, seconds: float) -> None:
        until = self.clock.elapsed + seconds
        while self.clock.elapsed < until:
            await asyncio.sleep(0.25)
            self._checked(self.delays.look)
            for failure in self.loop.failures:
                if "exception" in failure and "never retrieved" not in failure["message"]:
                    raise failure["exception"]
            if self.finding is not None:
                raise self.finding


def _handlers_of(
    tenant: str, handlers: Mapping[str, HandlerSettings]
) -> dict[str, HandlerSettings]:
    """A tenant's handlers, by their own names."""
    return {
        name.rpartition("/")[2]: policy
        for name, policy in handlers.items()
        if name.rpartition("/")[0] == tenant
    }


def _done(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


RAW = frozenset(CALLBACKS)
BOTH = frozenset((*CALLBACKS, *CALLS))
