"""Runs simulations: one seed, or a small scenario with crashes, in one process after the other."""

import asyncio
import gc
import os
import random
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from offhook import queues
from offhook.settings import HandlerSettings
from receiver import journal
from tests.simulation.clock import Clock
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.world import BOTH, RAW, Plan, World
from workers.serving import folding, guard, reader, roster, served

Trace = Callable[[str], None] | None

_TROUBLES = (
    "stop",
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


@dataclass
class Result:
    """What became of a simulation.

    Attributes:
        seed: or the scenario and its crashes.
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
        troubles = (*plan.troubles, trouble, trouble)
        plan = replace(plan, troubles=troubles, pools=True, calls=6, active=8.0)
    return _run(seed, seed, plan, sizes, trace)


def scenario(name: str, crashes: dict[int, str], trace: Trace = None) -> Result:
    """Run a scenario in which a process crashes at the commands with these numbers."""
    plan, seed = SCENARIOS[name]
    return _run((name, crashes), seed, replace(plan, crashes=crashes), _sizes(), trace)


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
            timeout=2.0,
            retry=choose.choice(([1.0, 2.0], [1.0], [], [1.0, 1.0, 1.0, 1.0])),
            start="earliest",
            process=pools.choice(("shared", "shared", "own")) if apart else "shared",
        )
    return Plan(
        partitions=choose.choice((1, 1, 2)),
        servers=choose.choice((1, 1, 2)),
        handlers=handlers,
        calls=choose.randint(1, 4),
        events=choose.randint(2, 5),
        active=choose.choice((3.0, 6.0)),
        rate=choose.choice((0.0, 0.01, 0.03, 0.1)),
        failing=choose.choice((0.0, 0.0, 0.2, 0.5)),
        slow=choose.choice((0.0, 0.0, 0.1)),
        room=choose.choice((0, 0, 2, 4)),
        troubles=tuple(choose.sample(_TROUBLES, choose.choice((0, 1, 2, 3)))),
        journal=choose.choice((False, True)),
        pools=apart,
    )


def _sizes(
    read: int = 500, room: int = 20_000, fold: int = 500, waiting: int = 5_000, kept: int = 2_000
) -> list[tuple[Any, str, Any]]:
    """How much is read and kept at a time: little, so that the limits are reached."""
    return [
        (reader, "READ_AT_ONCE", read),
        (roster, "_READ_AT_ONCE", read),
        (served, "MOST_OUTSTANDING", room),
        (folding, "AT_ONCE", fold),
        (folding, "MOST_WAITING", waiting),
        (folding, "MOST_KEPT", kept),
        (guard, "APART_FOR", 3.0),
        (guard, "TICK_EVERY", 1e6),  # no signs of life: there is no parent process
        (guard, "resident", lambda: 0),
    ]


def _run(
    name: Any, seed: int, plan: Plan, sizes: list[tuple[Any, str, Any]], trace: Trace
) -> Result:
    _collect_no_garbage()
    clock = Clock()
    tokens = Random(f"tokens {seed}")
    random.seed(seed)
    finding = None
    with ExitStack() as stack:
        enter = stack.enter_context
        for module, attribute, value in sizes:
            enter(patch.object(module, attribute, value))
        enter(_folder())
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


def _collect_no_garbage() -> None:
    """Otherwise `finally` blocks of dead tasks would run at any time."""
    if gc.isenabled():
        gc.disable()
        gc.collect()
        gc.freeze()
        asyncio.set_event_loop(None)
        warnings.simplefilter("ignore", RuntimeWarning)  # coroutines that were never awaited
        sys.unraisablehook = lambda _: None  # nor can the others end


def _forget(world: World) -> None:
    """Let go of tasks that will never end."""
    loop: Any = world.loop
    loop._ready.clear()
    loop._scheduled.clear()
    loop.__dict__.pop("_in_thread")
    world.__dict__.clear()
    gc.collect()
    loop.close()


@contextmanager
def _folder() -> Iterator[None]:
    """A folder for the journal, in memory where there is a file system for it."""
    memory = Path("/dev/shm")  # noqa: S108
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        patch.dict(os.environ, OFFHOOK_CONFIG=f"{folder}/offhook.toml"),
    ):
        yield
