"""A bench: servers in this process, on a real Redis or Valkey server, until all is delivered."""

import asyncio
import contextvars
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import redis as blocking
from msgspec.structs import replace

from offhook import CallEvent, Context, queues
from offhook.connection import connect
from offhook.event import from_stored
from offhook.http import Http
from offhook.inbox import HandlerState, Inbox, partition_of, release_leases
from offhook.inbox.handler_states import HandlerStates
from offhook.inbox.leases import holder
from offhook.plugins import PluggedHandler
from offhook.settings import HandlerSettings, Settings, TenantSettings
from tests.conftest import SECRET
from tests.events import batch_of
from workers.delivery.caller_names import naming
from workers.delivery.steps import StepPage
from workers.serving.partition_server import Server
from workers.serving.served import ServedHandler

Handle = Callable[[CallEvent, Context], Awaitable[None] | None]
STREAM = "offhook:{0}:inbox"

_process = contextvars.ContextVar("process", default=0)
_processes = itertools.count(1)


async def until(
    condition: Callable[[], object], what: str = "the condition holds", seconds: float = 20
) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        await asyncio.sleep(0.005)


def as_another_process() -> contextvars.Context:
    """Return a context in which tokens of leases name a process of their own."""
    context = contextvars.copy_context()
    context.run(_process.set, next(_processes))
    return context


def token() -> str:
    """Return a token of the process that runs now: stands for `new_token`."""
    return f"{holder(_process.get())}{secrets.token_hex(8)}"


class Killed(Exception):
    """Ends a server without the chance to write what it did."""


class Bench:
    """Handlers by name, and one inbox.

    Attributes:
        server: the one that `serving` or `deliver` has started last.
    """

    def __init__(self, url: str, partitions: int = 1) -> None:
        self.url = url
        self.partitions = partitions
        self.settings = Settings(
            secret=SECRET,  # type: ignore[arg-type]
            redis_url=url,
            partitions=partitions,
            handlers={"crm": HandlerSettings(use="tests:none")},
        )
        self.redis = blocking.Redis.from_url(url)
        self.handlers: list[PluggedHandler] = []
        self.tenants: dict[str, TenantSettings] = {}
        self.server: Server

    def change(self, **settings: Any) -> None:
        """Change the settings."""
        self.settings = self.settings.model_copy(update=settings)

    def plug(self, handle: Handle, name: str = "crm", **policy: Any) -> None:
        """Configure a handler; that of a tenant by its full name."""
        chosen = HandlerSettings(use="tests:none", **policy)
        self.handlers = [each for each in self.handlers if each.name != name]
        self.handlers.append(PluggedHandler.of(name, chosen, handle))
        policies = {each.name: each.policy for each in self.handlers}
        self.change(
            handlers={each: policy for each, policy in policies.items() if "/" not in each},
            tenants={
                tenant: its.model_copy(
                    update={
                        "handlers": {
                            each.partition("/")[2]: policy
                            for each, policy in policies.items()
                            if each.partition("/")[0] == tenant
                        }
                    }
                )
                for tenant, its in self.tenants.items()
            },
        )

    def record(self, **policy: Any) -> list[str]:
        """Configure `crm` as a handler that delivers at once. Return `n` of what it gets."""
        got: list[str] = []

        async def handle(one: CallEvent, context: Context) -> None:
            got.append(one.parameters["n"])

        self.plug(handle, **policy)
        return got

    async def append(self, *events: CallEvent) -> None:
        """Accept these events."""

        async def go(inbox: Inbox) -> None:
            await inbox.register(self.settings.starts)
            for number in range(self.partitions):
                some = [each for each in events if partition_of(each, self.partitions) == number]
                if some:
                    batch = batch_of(*some)
                    mine = replace(batch, partition=number)
                    await inbox.append(mine, 0)

        await self.with_inbox(go)

    @asynccontextmanager
    async def serving(
        self, handle: Handle | None = None, *, pool: str = "", **policy: Any
    ) -> AsyncIterator[Server]:
        """Run a server of a pool; stop it at the end, and raise its error."""
        if handle is not None:
            self.plug(handle, **policy)
        server, task = await self.start(pool)
        try:
            yield server
        finally:
            server.stop()
            await task

    async def start(self, pool: str = "") -> tuple[Server, "asyncio.Task[None]"]:
        """Start a server and leave the rest to the test."""
        ready = asyncio.Event()
        task = asyncio.create_task(self._run(ready, pool), context=as_another_process())
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            await task
        return self.server, task

    async def deliver(self, handle: Handle | None = None, **policy: Any) -> None:
        """Run a server until all that can be delivered now is delivered."""
        async with self.serving(handle, **policy):
            await self.finished()

    async def finished(self) -> None:
        """Wait until every event is delivered, dead or parked."""
        await until(lambda: not self.unfinished(), "all events are finished")

    async def all_done(self) -> None:
        """Wait until every event is delivered or dead."""
        await until(lambda: not self.unfinished() and not self.parked(), "all events are done")

    def unfinished(self) -> int:
        """Return the number of partitions with events that are not finished."""
        return sum(self.redis.scard(self.key("unfinished", n)) for n in range(self.partitions))

    def parked(self) -> int:
        """Return the number of parked lanes."""
        return sum(self.redis.hlen(self.key("parked", n)) for n in range(self.partitions))

    def lane(self, call: str, handler: str = "crm") -> list[str]:
        """Return `n` of the events in a parked lane."""
        found: Any = self.redis.lrange(self.key(f"lane:{handler}:main/{call}"), 0, -1)
        return [from_stored(each).parameters["n"] for each in found]

    def due(self) -> dict[str, float]:
        """Return the seconds until the redelivery of each parked lane, by handler and call."""
        found: Any = self.redis.zrange(self.key("due"), 0, -1, withscores=True)
        return {member.decode(): score / 1000 - time.time() for member, score in found}

    def dead(self, handler: str = "crm") -> list[Any]:
        """Return the jobs that are the handler's dead letters."""
        queue = queues.queue(queues.dead_queue(handler), self.redis)
        return [queue.fetch_job(each) for each in queue.failed_job_registry.get_job_ids()]

    async def state(self, handler: str = "crm") -> HandlerState:
        """Return how far a handler has come."""
        found: HandlerState = await self.with_inbox(
            lambda inbox: HandlerStates(inbox).state(handler, 0)
        )
        return found

    async def with_inbox(self, go: Callable[[Inbox], Awaitable[Any]]) -> Any:
        """Use the inbox from outside of the server."""
        async with connect(self.url) as client:
            return await go(Inbox(client, self.partitions))

    async def kill(self, server: Server, task: "asyncio.Task[None]") -> None:
        """End a server without a chance to write what it did, and free its leases."""
        pid = int(server.leases.name.split("/")[1])
        server._broken(Killed())
        await asyncio.wait([task])
        assert isinstance(task.exception(), Killed)
        release_leases(self.redis, server.pool, pid)

    @staticmethod
    def key(name: str, partition: int = 0) -> str:
        return f"offhook:{{{partition}}}:{name}"

    @staticmethod
    def served(server: Server, name: str = "crm") -> ServedHandler:
        """Return a handler in a server."""
        found = server.roster.get(name)
        assert found is not None
        return found

    async def _run(self, ready: asyncio.Event, pool: str) -> None:
        handlers = [
            each for each in self.handlers if pool in (each.policy.pool_of(each.name), each.name)
        ]
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(connect(self.settings.redis_url, tries=10))
            waiting = await stack.enter_async_context(connect(self.settings.redis_url, tries=0))
            inbox = Inbox(client, self.partitions)
            http = await stack.enter_async_context(Http())
            names = await stack.enter_async_context(naming(self.settings, client))
            server = Server(
                self.settings, handlers, inbox, waiting, self.redis, http, names, StepPage(), pool
            )
            self.server = server
            ready.set()
            await server.run()
