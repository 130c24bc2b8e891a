"""Reloads: `offhook reload`, and the processes that follow it while anything may be killed."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from offhook.errors import ConfigError
from offhook.operations.processes import OFFHOOK, Reload, begin, cancel, commit, running
from offhook.operations.reload_member import Member
from offhook.operations.running_files import SERVE, WORK, Loaded
from offhook.settings import Settings
from tests.simulation.loop import Process
from tests.simulation.model import Violation

if TYPE_CHECKING:
    from tests.simulation.world import World

_PATIENCE = 30.0  # seconds of a reload
_LOOK_EVERY = 0.1  # seconds
REFUSED = "refused"  # the step that ends a reload
_Answers = list[Any]


class Killed(BaseException):
    """Ends what a killed process was about to do."""


class Version:
    """Files of a configuration.

    Attributes:
        refused_by: the program that refuses it; empty: it is sound.
    """

    def __init__(self, number: int, settings: Settings, refused_by: str = "") -> None:
        self.number = number
        self.settings = settings
        self.refused_by = refused_by

    def loaded(self, world: "World", program: str) -> Loaded:
        """What a process that has just loaded it reports."""
        name = str(self.number)
        return Loaded(program, "host", world.pid(), world.moment(), "", {"f": name}, {}, [])


class Generation:
    """The servers of one version, as a supervisor runs them.

    Attributes:
        leaving: start none of them again.
    """

    def __init__(self, version: Version) -> None:
        self.version = version
        self.leaving = False


class Blocking:
    """A client that blocks, in place of redis-py's: its commands take no time, but may fail."""

    def __init__(self, world: "World", process: Process) -> None:
        self._world = world
        self._process = process
        self._queued: list[tuple[Any, ...]] | None = None

    def _do(self, *commands: tuple[Any, ...]) -> _Answers:
        world, process = self._world, self._process
        kind = world.faults.work()
        if world.faults.down:
            kind = kind or "lost"
        if kind == "crash before" or process.dead:
            world.kill(process)
            raise Killed
        answers = (
            [] if kind == "lost" else [world.redis.execute(*map(_plain, each)) for each in commands]
        )
        if kind == "crash after":
            world.kill(process)
            raise Killed
        if kind:
            raise RedisConnectionError("Connection closed by server.")
        return answers

    def execute_command(self, *command: Any) -> Any:
        if self._queued is not None:
            self._queued.append(command)
            return None
        return self._do(command)[0]

    def get(self, name: str) -> Any:
        return self.execute_command("GET", name)

    def set(self, name: str, value: bytes, px: int) -> Any:
        return self.execute_command("SET", name, value, "PX", px)

    def delete(self, name: str) -> Any:
        return self.execute_command("DEL", name)

    def zrange(self, name: str, first: int, last: int) -> Any:
        return self.execute_command("ZRANGE", name, first, last)

    def zadd(self, name: str, members: dict[str, float]) -> Any:
        return [self.execute_command("ZADD", name, score, each) for each, score in members.items()]

    def zremrangebyscore(self, name: str, least: float, most: float | str) -> Any:
        return self.execute_command("ZREMRANGEBYSCORE", name, least, most)

    def multi(self) -> None:
        self._queued = []

    def execute(self) -> _Answers:
        queued, self._queued = self._queued or [], None
        return self._do(*queued) if queued else []

    def pipeline(self, transaction: bool) -> "Blocking":
        made = Blocking(self._world, self._process)
        made.multi()
        return made

    def __enter__(self) -> "Blocking":
        return self

    def __exit__(self, *_: object) -> None:
        self._queued = None

    def transaction(self, function: Callable[["Blocking"], object], *_: str) -> _Answers:
        made = Blocking(self._world, self._process)
        function(made)
        return made.execute()


def _plain(value: Any) -> str | bytes:
    return value if isinstance(value, bytes) else str(value)


class Work:
    """The keeper of `offhook work`, as a `Part`."""

    def __init__(self, world: "World", keeper: Process) -> None:
        self._world = world
        self._keeper = keeper
        self._running = self._start(world.files)
        self._next: Version | None = None
        self._started: Generation | None = None
        self._before: Generation | None = None

    def prepare(self) -> Loaded | None:
        self._next = self._world.files
        return _prepared(self._world, self._next, WORK)

    def change(self) -> bool:
        world = self._world
        if self._next is not None:
            self._started = self._started or self._start(self._next)
            if not any(each is self._started for each in world.generations.values()):
                return False
            self._before, self._running = self._running, self._started
            self._before.leaving = True
            self._next = self._started = None
        for process, each in list(world.generations.items()):
            if each is self._before and process in world.serving:
                world.serving[process].stop()
        return self._before not in world.generations.values()

    def drop(self) -> None:
        self._next = None

    def _start(self, version: Version) -> Generation:
        generation = Generation(version)
        self._world.supervised.append(generation)
        self._world.start(generation, partial(self._world.loop.spawn, self._keeper))
        return generation


class Serve:
    """`offhook serve`, as a `Part`."""

    def __init__(self, world: "World", process: Process) -> None:
        self._world = world
        self._process = process
        self._next: Version | None = None
        self._changing: asyncio.Task[None] | None = None

    def prepare(self) -> Loaded | None:
        self._next = self._world.files
        return _prepared(self._world, self._next, SERVE)

    def change(self) -> bool:
        world, following = self._world, self._next
        if self._changing is None and following is not None:
            world.shares[self._process].limit_tenants(following.settings.tenants)
            store = world.stores[self._process]
            self._changing = asyncio.ensure_future(store.take(following.settings))
        if self._changing is not None and not self._changing.done():
            return False
        self._changing = self._next = None
        return True

    def drop(self) -> None:
        self._next = None


def _prepared(world: "World", version: Version, program: str) -> Loaded:
    if version.refused_by == program:
        raise ConfigError(["a plugin is misconfigured"])
    return version.loaded(world, program)


async def follow(world: "World", process: Process, part: Any, program: str) -> None:
    """Take part in reloads on behalf of a process."""
    redis = cast(Redis, Blocking(world, process))
    member = Member(redis, world.files.loaded(world, program), part)
    while True:
        member.look()
        await asyncio.sleep(member.look_in)


async def keep_working(world: "World") -> None:
    """Run `offhook work`, again whenever it was killed: with its servers, and with new files."""
    while True:
        keeper = world.process("keeper")
        world.keepers = [keeper]
        task = world.loop.spawn(keeper, _work(world, keeper))
        await asyncio.wait([task, world.ended(keeper)], return_when=asyncio.FIRST_COMPLETED)
        world.raise_unless_killed(task, keeper)
        for generation in world.supervised:
            generation.leaving = True
        world.supervised.clear()
        for process in [*world.generations]:
            world.kill(process)
        world.delays.disturbed()
        await asyncio.sleep(world.random.uniform(0.05, 1.0))
        while world.files.refused_by:  # it cannot start
            await asyncio.sleep(0.1)


async def _work(world: "World", keeper: Process) -> None:
    await follow(world, keeper, Work(world, keeper), WORK)


async def reload(world: "World", version: Version) -> bool:
    """`offhook reload`. Return whether all processes run the version now."""
    before = world.files
    world.files = version
    process = world.process("reload")
    task = world.loop.spawn(process, _reload(world, process, version))
    await asyncio.wait([task, world.ended(process)], return_when=asyncio.FIRST_COMPLETED)
    world.raise_unless_killed(task, process)
    done = task.done() and not task.cancelled() and not task.exception() and task.result()
    if version.refused_by:
        world.files = before
    return bool(done)


async def _reload(world: "World", process: Process, version: Version) -> bool:
    """As `offhook.operations.reload.reload`, without blocking."""
    redis = cast(Redis, Blocking(world, process))
    loaded = version.loaded(world, WORK)
    wanted = Reload(f"r{version.number}-{process.pid}", world.moment(), loaded, OFFHOOK)
    deadline = world.clock.elapsed + _PATIENCE
    try:
        while not begin(redis, wanted, _PATIENCE + 5):
            if world.clock.elapsed > deadline:
                return False
            await asyncio.sleep(_LOOK_EVERY)
        ready = await _wait(world, redis, wanted, deadline, {"done", "ready"})
        if not ready:
            cancel(redis)
            return False
        commit(redis, wanted)
        return await _wait(world, redis, wanted, deadline, {"done"})
    except RedisError:
        return False


async def _wait(
    world: "World", redis: Redis, wanted: Reload, deadline: float, steps: set[str]
) -> bool:
    while world.clock.elapsed < deadline:
        found = running(redis)
        ours = [each for each in found if each.reload == wanted.id]
        if any(each.step == REFUSED for each in ours):
            return False
        if found and sum(each.step in steps or each.step == "refused" for each in ours) == len(
            found
        ):
            return True
        await asyncio.sleep(_LOOK_EVERY)
    return False


def check(version: Version) -> None:
    """Complain about a process that runs a version that another one has refused."""
    if version.refused_by:
        raise Violation(f"version {version.number} runs, which {version.refused_by} refuses")


async def change(world: "World") -> None:
    """The operator changes the configuration, and reloads it."""
    world.versions += 1
    version = Version(world.versions, _changed(world), world.random.choice(("", "", WORK, SERVE)))
    world.trace(f"reload to {version.number}, refused by {version.refused_by!r}")
    done = await reload(world, version)
    world.trace(f"reload to {version.number}: {'done' if done else 'failed'}")
    if done:
        world.faults.count("reloaded")


async def restore(world: "World") -> None:
    """Change back to all handlers and tenants, until that succeeds."""
    while True:
        world.versions += 1
        if await reload(world, Version(world.versions, world.settings)):
            world.reloading = False
            return
        await asyncio.sleep(0.5)


def _changed(world: "World") -> Settings:
    """Handlers removed or added again, in other pools, with another concurrency; or a tenant."""
    random, handlers = world.random, dict(world.plan.handlers)
    tenants = [name for name in world.plan.tenants if random.random() < 0.7]
    for name, policy in world.plan.handlers.items():
        tenant = name.rpartition("/")[0]
        if (tenant and tenant not in tenants) or random.random() < 0.3:
            del handlers[name]
            continue
        process = random.choice(("shared", "own")) if world.plan.pools else "shared"
        concurrency = random.choice((1, 2, 16))
        handlers[name] = policy.model_copy(update={"process": process, "concurrency": concurrency})
    return world.configured(handlers or world.plan.handlers, tenants)
