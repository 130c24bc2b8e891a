"""Troubles: what goes wrong besides single commands, and what people do meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from offhook.event import EventType
from offhook.inbox import Inbox, ParkedLanes, keys
from offhook.inbox.apart import Apart
from offhook.inbox.leases import LEASE_MS
from offhook.inbox.paused import Pause
from offhook.inbox.replays import Replays
from tests.simulation.faults import HARMLESS
from tests.simulation.loop import PROCESS, Process
from tests.simulation.model import Violation
from tests.simulation.receiving import receive, send, stop
from tests.simulation.reloads import change
from workers.serving.due import PAUSED_WAIT
from workers.serving.partition_server import WATCH_EVERY

if TYPE_CHECKING:
    from tests.simulation.world import World

FLOOD = 80  # events, more than a tenant may send at once

_Trouble = Callable[["World"], Awaitable[None]]


async def _stop(world: "World") -> None:
    """SIGTERM to a server."""
    for server in _some(world, list(world.serving.values())):
        world.trace("stop")
        server.stop()


async def _orphan(world: "World") -> None:
    """A server whose deliveries hang is stopped, and then learns that its worker is dead."""
    for process, server in _some(world, list(world.serving.items())):
        world.trace(f"deliveries of {process} hang")
        world.hanging.add(process)
        await asyncio.sleep(world.random.uniform(0.0, 1.0))
        server.stop()
        await asyncio.sleep(world.random.choice((0.01, 0.5, 3.0)))
        world.trace(f"{process} is an orphan")
        server.stop(at_once=True)
        asyncio.get_running_loop().call_later(LEASE_MS / 1000, _ended, world, process)


def _ended(world: "World", process: Process) -> None:
    if not process.dead and not process.frozen:
        world.finding = world.finding or Violation(f"{process} still runs")


async def _kill(world: "World") -> None:
    """SIGKILL to any process."""
    every = [*world.serving, *world.receiving, *world.commits, *world.keepers]
    for process in _some(world, every):
        world.kill(process)


async def _freeze(world: "World") -> None:
    """A process does not get the CPU."""
    for process in _some(world, [*world.serving, *world.receiving, *world.commits]):
        world.trace(f"{process} is frozen")
        world.loop.freeze(process)
        await asyncio.sleep(world.random.choice((0.5, 3.0, 7.9, 9.0, 12.0)))
        world.trace(f"{process} goes on")
        world.loop.thaw(process)


async def _steal(world: "World") -> None:
    """A lease is gone."""
    number = world.random.randrange(world.plan.partitions)
    world.trace(f"the lease of {number} is gone")
    world.redis.execute("DEL", keys.serving(number))


async def _down(world: "World") -> None:
    """The server is away."""
    world.trace("the server is down")
    world.faults.down = True
    world.network.cut()
    await asyncio.sleep(world.random.choice((0.2, 1.0, 4.0, 8.0)))
    world.faults.down = False
    world.trace("the server is back")


async def _fill(world: "World") -> None:
    """The server has no memory."""
    world.trace("the server is full")
    world.redis.full = world.faults.full = True
    await asyncio.sleep(world.random.choice((0.5, 2.0, 7.0)))
    world.redis.full = world.faults.full = False
    world.trace("the server has room")


async def _forget_scripts(world: "World") -> None:
    """The server forgets its scripts, as after a restart."""
    world.trace("SCRIPT FLUSH")
    world.redis.flush_scripts()


async def _set_clock(world: "World") -> None:
    """The clock jumps."""
    seconds = world.random.choice((-3600, -30, -3, 3, 30, 3600))
    world.trace(f"the clock jumps by {seconds} s")
    world.clock.set(seconds)


async def _fail_over(world: "World") -> None:
    """The server loses its last writes."""
    snapshot = world.redis.snapshot()
    await asyncio.sleep(world.random.choice((0.005, 0.05, 0.5, 1.5)))
    world.trace("failover: the last writes are lost")
    world.redis.restore(snapshot)
    world.redis.flush_scripts()
    world.model.restored()
    world.network.cut()


async def _replay(world: "World") -> None:
    """`offhook replay`."""
    process = world.process("replay")

    async def run() -> None:
        if world.model.has_earlier_layout():
            return  # a replay covers what this version has taken over
        inbox = Inbox(world.client(3), world.plan.partitions)
        handler = world.random.choice(list(world.plan.handlers))
        since = datetime.fromtimestamp(world.clock.time() - world.random.uniform(0, 5), UTC)
        since -= timedelta(microseconds=since.microsecond % 1000)
        owed = world.model.replaying(handler, since)
        failovers = world.faults.counts.get("failover", 0)
        try:
            count = sum(
                [
                    await Replays(inbox).set_back(handler, since, tenant)
                    for tenant in world.tenants
                    if handler in world.settings.handlers_for(tenant)
                ]
            )
        except RedisError:
            return
        world.trace(f"replay of {count} events to {handler} since {since.timestamp():.3f}")
        if count and world.faults.counts.get("failover", 0) == failovers:
            world.model.owed |= owed

    await asyncio.wait(
        [world.loop.spawn(process, run()), world.ended(process)], return_when="FIRST_COMPLETED"
    )


async def _retry(world: "World") -> None:
    """`offhook dead retry`, and the scheduler, which goes on when that is killed."""
    process = world.process("retry")

    async def run() -> None:
        inbox = Inbox(world.client(3), world.plan.partitions)
        for handler, event_id in sorted(world.model.dead):
            world.letters(process, lambda: world.model.requeue(handler, event_id))  # noqa: B023
            try:
                await rejoin(inbox, handler, event_id)
            except RedisError:
                continue

    async def rejoin(inbox: Inbox, handler: str, event_id: str) -> None:
        event = world.model.events[event_id]
        burials = world.model.burials[handler, event_id]
        await ParkedLanes(inbox, handler).rejoin([event])
        world.trace(f"retry of {event_id} for {handler}")
        await asyncio.sleep(world.random.choice((0.001, 0.001, 0.1, 2.0)))
        done = PROCESS.get() or process
        world.letters(done, lambda: world.model.deleted(handler, event_id, burials))

    async def run_on() -> None:
        inbox = Inbox(world.client(10), world.plan.partitions)
        while world.model.requeued:
            for handler, event_id in sorted(world.model.requeued):
                with suppress(RedisError):
                    await rejoin(inbox, handler, event_id)
            await asyncio.sleep(0.5)

    await asyncio.wait(
        [world.loop.spawn(process, run()), world.ended(process)], return_when="FIRST_COMPLETED"
    )
    while world.model.requeued:
        scheduler = world.process("scheduler")
        await asyncio.wait(
            [world.loop.spawn(scheduler, run_on()), world.ended(scheduler)],
            return_when="FIRST_COMPLETED",
        )


async def _move_out(world: "World") -> None:
    """A handler misbehaves, and is to run in a process of its own; its process may have died."""
    handler = world.random.choice(list(world.plan.handlers))
    if world.plan.handlers[handler].pool_of(handler) == "" and world.plan.pools:
        world.trace(f"{handler} is moved out")
        world.redis.execute("HSET", keys.APART, handler, Apart.now("a test").stored())
        if world.random.random() < 0.3:
            await _kill(world)


async def _pause(world: "World") -> None:
    """A person pauses a handler, and resumes it; meanwhile a process may die."""
    handler = world.random.choice(list(world.plan.handlers))
    if world.redis.execute("HEXISTS", keys.PAUSED, handler):
        return
    seconds = world.random.choice((0.5, 3.0, 8.0))
    world.delays.troubled(handler, seconds + 2 * WATCH_EVERY + PAUSED_WAIT[1])
    world.trace(f"{handler} is paused")
    world.redis.execute("HSET", keys.PAUSED, handler, Pause("a test", 0.0).stored())
    plan = world.plan
    if {*plan.troubles} <= {"pause", "move out"} and not (plan.rate or plan.faults):
        world.paused[handler] = world.clock.elapsed
    await asyncio.sleep(world.random.uniform(0.0, seconds))
    if world.random.random() < 0.3:
        await _kill(world)
    await asyncio.sleep(seconds)
    world.trace(f"{handler} is resumed")
    world.redis.execute("HDEL", keys.PAUSED, handler)
    world.paused.pop(handler, None)


async def _corrupt(world: "World") -> None:
    """A parked lane has an event that cannot be read: damaged, or of a later version."""
    lanes = [
        (number, *member.decode().split(" ", 1))
        for number in range(world.plan.most_partitions)
        for member in world.redis.execute("HKEYS", keys.parked(number))
    ]
    for number, handler, call in _some(world, sorted(lanes)):
        text = world.random.choice(('{{"v":9,"n":{}}}', "damaged {}"))
        stored = text.format(len(world.model.unreadable)).encode()
        # First, if no attempt has begun: it would take this event off the lane, not its own.
        member = f"{handler} {call}"
        first = any(
            world.redis.execute("ZSCORE", keys.due(number, pool), member) is not None
            for pool in ("", handler)
        )
        world.trace(f"an event of {call} for {handler} cannot be read, first: {first}")
        world.redis.execute("LPUSH" if first else "RPUSH", keys.lane(number, handler, call), stored)
        world.model.corrupted(handler, stored)


async def _raise_partitions(world: "World") -> None:
    """Another number of partitions: a receiver with it takes over, then the first one restarts."""
    if not world.commits:
        return
    plan = world.plan
    world.partitions = plan.raised if world.partitions == plan.partitions else plan.partitions
    world.trace(f"partitions = {world.partitions}")
    first = list(world.commits)[-1]
    beside = asyncio.create_task(world.life("receiver", partial(receive, world)))
    second = await _next_receiver(world, first)
    await stop(world, first)  # it starts again
    await _next_receiver(world, second)
    await stop(world, second)
    await beside


async def _next_receiver(world: "World", before: Process) -> Process:
    """Wait until a receiver listens that has begun after another one, and gets the callbacks."""
    while not world.commits or list(world.commits)[-1] is before:
        await asyncio.sleep(0.01)
    return list(world.commits)[-1]


async def _flood(world: "World") -> None:
    """A tenant sends more than it may, at once: its events are refused, those of others are not."""
    tenant = world.random.choice(world.plan.tenants or ("",))
    if not tenant or not world.plan.journal:
        return
    world.trace(f"{tenant} floods")
    world.flooding.add(tenant)
    for handler in world.settings.handlers_for(tenant):
        world.delays.troubled(handler, 20.0)
    name = f"flood{world.faults.counts['flood']}"
    events = [world.event(f"{name}-{n % 7}", n, EventType.ANSWER_IN, tenant) for n in range(FLOOD)]
    # Those of others arrive behind it.
    events += [world.event(name, 0, EventType.ANSWER_IN, each) for each in world.tenants]
    await asyncio.gather(*(send(world, each) for each in events))


TROUBLES: dict[str, _Trouble] = {
    "flood": _flood,
    "reload": change,
    "stop": _stop,
    "orphan": _orphan,
    "kill": _kill,
    "freeze": _freeze,
    "steal": _steal,
    "down": _down,
    "full": _fill,
    "scripts": _forget_scripts,
    "clock": _set_clock,
    "failover": _fail_over,
    "replay": _replay,
    "retry": _retry,
    "move out": _move_out,
    "pause": _pause,
    "corrupt": _corrupt,
    "raise": _raise_partitions,
}


async def make(world: "World", name: str) -> None:
    """Make this trouble again and again, until all is quiet."""
    while True:
        await asyncio.sleep(world.random.uniform(0.0, world.plan.active))
        if world.quiet:
            return
        world.faults.count(name)
        await TROUBLES[name](world)
        if name not in HARMLESS:
            world.delays.disturbed()


def _some(world: "World", things: list) -> list:  # type: ignore[type-arg]
    return [world.random.choice(things)] if things else []
