"""Runs simulations: one seed, or a small scenario with faults, in one process after the other."""

import asyncio
import gc
import os
import pickle
import random
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from unittest.mock import patch

from offhook import queues
from offhook.inbox import stream
from offhook.settings import HandlerSettings
from receiver import journal
from tests.simulation.clock import Clock
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.server import Server
from tests.simulation.world import BOTH, BURST, RAW, Plan, World
from workers.serving import folding, guard, kept_calls, roster, runners, served

Task = TypeVar("Task")
Trace = Callable[[str], None] | None

_TROUBLES = (
    "stop",
    "orphan",
    "kill",
    "freeze",
    "steal",
    "down",
    "full",
    "scripts",
    "clock",
    "failover",
    "replay",
    "retry",
)
_IN_A_PROCESS = 200
# In each one of so many, handlers move out; in another one, they are paused; in a third one, both;
# in a fourth one, parked events cannot be read.
_MOVING = 8
_WITH_TENANTS = 5  # each one of so many has tenants
_RELOADING = 16  # in each one of so many, the configuration changes
_RAISING = 16  # in each one of so many, `partitions` does
_CALM = 8  # each one of so many simulations has no faults: all must be prompt


@dataclass
class Result:
    """What became of a simulation.

    Attributes:
        seed: or the scenario and its faults.
        finding: what is wrong; None if nothing is.
        simulated: seconds.
        commands: number of commands and file operations.
        faults: number of each kind.
    """

    seed: Any
    finding: str | None
    simulated: float
    commands: int
    faults: dict[str, int] = field(default_factory=dict)


def simulate(
    seed: int, trace: Trace = None, plan: Plan | None = None, trouble: str | None = None
) -> Result:
    """Run the simulation of a seed. The same arguments give the same result.

    Args:
        plan: what it is about; chosen by the seed if not given.
        trouble: one more, twice.
    """
    choose = Random(f"sizes {seed}")
    sizes = _sizes(
        read=choose.choice((2, 3, 500)),
        room=choose.choice((3, 8, 20_000)),
        fold=choose.choice((1, 2, 500)),
        waiting=choose.choice((1, 3, 5_000)),
        kept=choose.choice((1, 2_000)),
    )
    plan = plan or plan_of(seed)
    if trouble is not None:
        plan = with_trouble(plan, trouble)
    return _run(seed, seed, plan, sizes, trace)


def isolated(tasks: Iterable[Task], run: Callable[[Task], Result]) -> Iterator[Result]:
    """Run simulations in processes of their own, some in each: to collect their garbage takes long.

    Besides, a collection would run `finally` blocks of dead tasks at any time.
    """
    Server()  # now, so that it need not be made in each process
    gc.disable()
    gc.collect()
    gc.freeze()
    asyncio.set_event_loop(None)
    warnings.simplefilter("ignore", RuntimeWarning)  # coroutines that were never awaited
    sys.unraisablehook = lambda _: None  # nor can the others end
    left = iter(tasks)
    while some := list(islice(left, _IN_A_PROCESS)):
        yield from _in_a_process(some, run)


def _in_a_process(tasks: Sequence[Task], run: Callable[[Task], Result]) -> Iterator[Result]:
    receiving, sending = os.pipe()
    child = os.fork()
    if not child:
        os.close(receiving)
        with os.fdopen(sending, "wb") as results:
            for task in tasks:
                pickle.dump(run(task), results)
                results.flush()
        os._exit(0)
    os.close(sending)
    try:
        with os.fdopen(receiving, "rb") as results:
            for _ in tasks:
                yield pickle.load(results)  # noqa: S301 - it is our own
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def with_trouble(plan: Plan, trouble: str) -> Plan:
    """The same with one more trouble, twice, and time for it."""
    troubles = (*plan.troubles, trouble, trouble)
    return replace(plan, troubles=troubles, pools=True, calls=4, active=5.0)


def scenario(name: str, faults: dict[int, str], trace: Trace = None) -> Result:
    """Run a scenario with faults at the commands with these numbers."""
    plan, seed = SCENARIOS[name]
    return _run((name, faults), seed, replace(plan, faults=faults), _sizes(apart=0.5), trace)


def plan_of(seed: int) -> Plan:
    """What the simulation of this seed is about."""
    choose = Random(f"plan {seed}")
    pools = Random(f"pools {seed}")
    apart = pools.choice((False, False, True))
    handlers = {}
    for number in range(choose.choice((1, 1, 2, 3))):
        handlers[f"h{number}"] = HandlerSettings(
            use="simulated",
            events=choose.choice((RAW, RAW, BOTH)),
            concurrency=choose.choice((1, 2, 16)),
            timeout=pools.choice((2.0, 60.0)),
            retry=choose.choice(([1.0, 2.0], [1.0], [], [1.0, 1.0, 1.0, 1.0])),
            start="earliest",
            process=pools.choice(("shared", "shared", "own")) if apart else "shared",
        )
    plan = Plan(
        partitions=choose.choice((1, 1, 2)),
        servers=choose.choice((1, 1, 2)),
        handlers=handlers,
        calls=choose.randint(1, 4),
        events=choose.randint(2, 5),
        active=choose.choice((2.0, 4.0)),
        rate=choose.choice((0.0, 0.01, 0.03, 0.1)),
        failing=choose.choice((0.0, 0.0, 0.2, 0.5)),
        slow=choose.choice((0.0, 0.0, 0.1)),
        room=choose.choice((0, 0, 2, 4)),
        troubles=tuple(choose.sample(_TROUBLES, choose.choice((0, 1, 2, 3)))),
        journal=choose.choice((False, True)),
        pools=apart,
        migrates=pools.random() < 0.15,
    )
    tenants = Random(f"tenants {seed}")
    if not plan.migrates and tenants.random() < 1 / _WITH_TENANTS:
        plan = _with_tenants(plan, tenants)
    if tenants.random() < 0.5 and plan.tenants:
        plan = replace(plan, journal=True, troubles=(*plan.troubles, "flood"))
    if seed % _RELOADING == 5:
        return _with_reloads(plan)
    if seed % _RAISING == 9:
        return _raising(plan, tenants)
    if seed % _CALM == 0:
        plan = replace(plan, rate=0.0, failing=0.0, slow=0.0, troubles=(), migrates=False)
        return replace(plan, calls=4, events=3, gaps=BURST)
    if seed % _MOVING == 1:
        return with_trouble(plan, "move out")
    if seed % _MOVING == 5:
        return with_trouble(replace(plan, failing=0.5), "corrupt")
    if seed % _MOVING == 7:
        calm = replace(plan, rate=0.0, slow=0.3, troubles=("move out", "move out"))
        return with_trouble(calm, "pause")
    return with_trouble(plan, "pause") if seed % _MOVING == 3 else plan


def _with_reloads(plan: Plan) -> Plan:
    """The same with reloads, and time for them."""
    # One that is removed before it has a position, and added again, is owed what came meanwhile.
    handlers = {
        name: policy.model_copy(update={"start": "earliest"})
        for name, policy in plan.handlers.items()
    }
    troubles = (*plan.troubles, "reload", "reload", "kill")
    return replace(
        plan, handlers=handlers, troubles=troubles, journal=True, migrates=False, active=10.0
    )


def _raising(plan: Plan, choose: Random) -> Plan:
    """The same while receivers restart with another number of partitions.

    Without faults: a receiver that cannot reach Redis has its journal, and events of a call that
    come to another one meanwhile precede those in it.
    """
    return replace(
        plan,
        raised=choose.choice((1, 4, 16)),
        distance=choose.choice((0.0, 0.03)),
        journal=True,
        calls=6,
        events=7,
        gaps=(0.01, 0.1, 0.3),
        active=12.0,
        rate=0.0,
        troubles=("raise",),
        migrates=False,
    )


def _with_tenants(plan: Plan, choose: Random) -> Plan:
    """The same with two tenants, which have some of the handlers, too; some get all events."""
    handlers = {
        name: policy.model_copy(update={"tenants": choose.choice((None, "all", frozenset("a")))})
        for name, policy in plan.handlers.items()
    }
    for tenant in "ab":
        for name, policy in plan.handlers.items():
            if choose.random() < 0.7:
                handlers[f"{tenant}/{name}"] = policy.model_copy(update={"start": "now"})
    return replace(plan, handlers=handlers, tenants=("a", "b"))


def _sizes(
    read: int = 500,
    room: int = 20_000,
    fold: int = 500,
    waiting: int = 5_000,
    kept: int = 2_000,
    apart: float = 3.0,
) -> list[tuple[Any, str, Any]]:
    """How much is read and kept at a time: little, so that the limits are reached.

    Args:
        apart: seconds that a handler which was moved out stays so.
    """
    return [
        (stream, "MOST_PARTITIONS", 4),
        (served, "READ_AT_ONCE", read),
        (roster, "_READ_AT_ONCE", read),
        (runners, "MOST_OUTSTANDING", room),
        (folding, "AT_ONCE", fold),
        (folding, "MOST_WAITING", waiting),
        (kept_calls, "MOST_KEPT", kept),
        (guard, "APART_FOR", apart),
        (guard, "TICK_EVERY", 1e6),  # no signs of life: there is no parent process
        (guard, "resident", lambda: 0),
    ]


def _run(
    name: Any, seed: int, plan: Plan, sizes: list[tuple[Any, str, Any]], trace: Trace
) -> Result:
    clock = Clock()
    tokens = Random(f"tokens {seed}")
    finding = None
    with ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        random.seed(seed)
        enter = stack.enter_context
        for module, attribute, value in sizes:
            enter(patch.object(module, attribute, value))
        folder = enter(_folder())
        if trace is not None:
            trace = partial(_without, folder, trace)
        enter(clock.installed(lambda size: tokens.randbytes(size).hex(), lambda: world.pid()))
        world = World(seed, plan, clock, trace)
        enter(patch.object(queues, "bury", world.bury))
        enter(patch.object(queues, "is_dead", world.is_dead))
        enter(patch.object(journal, "os", world.disk))
        try:
            world.loop.run_until_complete(world.run())
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a simulation may find anything
            finding = f"{type(error).__name__}: {error}"
            if trace is not None:
                trace("".join(traceback.format_exception(error)))
        result = Result(
            name, finding, clock.elapsed - 1000, world.faults.commands, dict(world.faults.counts)
        )
        _forget(world)
    return result


def _without(folder: str, trace: Callable[[str], None], line: str) -> None:
    """Trace a line without the name of the folder, which differs from run to run."""
    trace(line.replace(folder, "FOLDER"))


def _forget(world: World) -> None:
    """Let go of tasks that will never end."""
    world.loop.forget()
    world.__dict__.clear()


@contextmanager
def _folder() -> Iterator[str]:
    """A folder for the journal, in memory where there is a file system for it."""
    memory = Path("/dev/shm")  # noqa: S108
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        patch.dict(os.environ, OFFHOOK_CONFIG=f"{folder}/offhook.toml"),
    ):
        yield folder
