"""The receiver of a simulation, its journal on a disk that fails, and a PBX."""

import asyncio
import errno
import os
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import RedisError

from offhook.errors import InboxUnavailable
from offhook.event import EventType, to_stored
from offhook.inbox import Batch, Inbox, partition_of
from offhook.operations.running_files import SERVE
from receiver.event_store import EventStore, started
from receiver.group_commit import GroupCommit
from receiver.limits import Shares, TenantUse
from tests.simulation.loop import PROCESS, Process
from tests.simulation.model import Violation
from tests.simulation.reloads import Serve, follow

if TYPE_CHECKING:
    from offhook.event import CallEvent
    from tests.simulation.world import World

MOST_WAITING = 25  # events of a tenant; ten times as many of the operator


class Disk:
    """In place of `os` in `receiver.journal`: each operation may fail, or crash its process."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._open: dict[Process, set[int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, *arguments: Any) -> int:
        self._fail("open")
        file = os.open(*arguments)
        self._open.setdefault(_running(), set()).add(file)
        return file

    def close(self, file: int) -> None:
        self._open.get(_running(), set()).discard(file)
        os.close(file)

    def pwrite(self, file: int, data: bytes, offset: int) -> int:
        kind = self._world.faults.work()
        if kind == "crash after":
            os.pwrite(file, data[: len(data) // 2], offset)
            self._crash(kind)
        self._crash(kind)
        return os.pwrite(file, data, offset)

    def fdatasync(self, file: int) -> None:
        self._fail("fdatasync")

    def fsync(self, file: int) -> None:
        self._fail("fsync")

    def ftruncate(self, file: int, size: int) -> None:
        kind = self._world.faults.work()
        if kind == "crash after":
            os.ftruncate(file, size)
        self._crash(kind)
        os.ftruncate(file, size)

    def _fail(self, what: str) -> None:
        self._world.trace(f"{PROCESS.get()} {what}")
        self._crash(self._world.faults.work())

    def _crash(self, kind: str) -> None:
        if not kind:
            return
        if kind.startswith("crash"):
            self._world.kill(_running())
            raise _Killed
        raise OSError(errno.ENOSPC, "No space left on device")

    def killed(self, process: Process) -> None:
        """Close the files of a process, and so unlock them."""
        for file in self._open.pop(process, ()):
            os.close(file)


class _Killed(BaseException):
    """Ends what a killed process was about to do."""


def _running() -> Process:
    process = PROCESS.get()
    assert process is not None
    return process


async def receive(world: "World", process: Process) -> None:
    """The receiver's process."""
    while world.files.refused_by:  # it cannot start
        await asyncio.sleep(0.1)
    inbox = Inbox(world.client(3), world.partitions)
    store = EventStore(world.files.settings, inbox, take_over_every=2.0)
    commit = GroupCommit(store.put, world.partitions, 10 * MOST_WAITING)
    running = await started(store)
    world.shares[process] = Shares(world.files.settings.tenants)
    world.commits[process] = commit  # now it listens
    if world.reloading:
        world.stores[process] = store
        await follow(world, process, Serve(world, process), SERVE)
    await running


async def stop(world: "World", process: Process) -> None:
    """SIGTERM to a receiver: it answers the callbacks in flight."""
    await world.commits.pop(process).close()
    world.kill(process)


async def send(world: "World", event: "CallEvent") -> None:
    """Let the PBX send a callback; return when it was answered or is lost."""
    if not world.commits:
        return
    process, commit = list(world.commits.items())[-1]
    if event.tenant not in world.shares[process]._tenants:
        return  # it was removed, or is not added yet
    if not _admits(world, world.shares[process].of_tenant(event.tenant)):
        return
    answered: asyncio.Future[Any] = world.loop.create_future()

    def done(outcome: bool | InboxUnavailable) -> None:
        if not answered.done():
            answered.set_result(outcome)

    context = copy_context()
    context.run(PROCESS.set, process)
    world.loop.call_soon(commit.submit, event.id, event, done, context=context)
    await asyncio.wait(
        (answered, world.ended(process)), timeout=15.0, return_when="FIRST_COMPLETED"
    )
    if not answered.done():
        return
    outcome = answered.result()
    if isinstance(outcome, InboxUnavailable) and "already waiting" in str(outcome):
        _refused(world, event.tenant, "waits for the others' events")
    if outcome is True:
        world.trace(f"accepted {event.id} of {event.call} ({event.type})")
        world.model.accepted[event.id] = event


def _admits(world: "World", use: TenantUse) -> bool:
    """As `receiver.app`: a tenant that sends too much gets a 429."""
    if use.bucket is None or use.bucket.take():
        return True
    _refused(world, use.name, "is refused")
    return False


def _refused(world: "World", tenant: str, what: str) -> None:
    world.trace(f"an event of {tenant!r} {what}")
    if tenant not in world.flooding:
        world.finding = world.finding or Violation(f"{tenant!r}, which floods nothing, {what}")


async def call(world: "World", name: str, tenant: str) -> None:
    """Let the PBX make a call."""
    await asyncio.sleep(world.random.uniform(0, world.plan.active * 0.8))
    for n in range(world.plan.events):
        kind = _kind_of(n, world.plan.events)
        await send(world, world.event(name, n, kind, tenant))
        await asyncio.sleep(world.random.choice(world.plan.gaps))
        if world.quiet:
            return


async def append(world: "World", process: Process) -> None:
    """A receiver in its simplest form: appends the events of all calls."""
    inbox = Inbox(world.client(3), world.plan.partitions)
    while not world.quiet:
        try:
            await inbox.register(world.settings.starts)
            break
        except RedisError:
            await asyncio.sleep(0.1)
    writer = f"w{process.pid}"
    numbers = [0] * world.plan.partitions

    async def call(name: str, tenant: str) -> None:
        await asyncio.sleep(world.random.uniform(0, world.plan.active * 0.7))
        for n in range(world.plan.events):
            event = world.event(name, n, _kind_of(n, world.plan.events), tenant)
            partition = partition_of(event, world.plan.partitions)
            async with locks[partition]:
                numbers[partition] += 1
                batch = Batch(
                    writer,
                    numbers[partition],
                    partition,
                    [event.id],
                    [msgspec.Raw(to_stored(event))],
                    [tenant] if tenant else [],
                )
                try:
                    await inbox.append(batch, 5.0)
                except InboxUnavailable:
                    continue
            world.model.accepted[event.id] = event
            await asyncio.sleep(world.random.choice(world.plan.gaps))

    locks = [asyncio.Lock() for _ in numbers]
    names = [f"c{process.pid}-{each}" for each in range(world.plan.calls)]
    await asyncio.gather(*(call(name, tenant) for name in names for tenant in world.tenants))
    await asyncio.sleep(1e9)


def _kind_of(n: int, events: int) -> EventType:
    if n == events - 1:
        return EventType.HANGUP
    return EventType.DIAL_IN if n == 0 else EventType.ANSWER_IN
