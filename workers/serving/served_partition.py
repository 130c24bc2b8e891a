"""`ServedPartition`: one partition while a server holds its lease."""

import asyncio
import logging
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from offhook.event import CallEvent
from offhook.inbox.migration import migrate
from offhook.inbox.partition import Partition
from offhook.logs import Outage
from offhook.tasks import asked_to_end, end
from workers.serving.folding import Folder
from workers.serving.lanes import Entry, Lane
from workers.serving.reader import Reader
from workers.serving.redeliveries import Redeliveries
from workers.serving.served import ServedHandler
from workers.serving.streams import Reading, TenantStream
from workers.serving.takeover import Takeover
from workers.serving.writer import Writer

if TYPE_CHECKING:
    from workers.serving.partition_server import Server

log = logging.getLogger("offhook.serve")


class ServedPartition:
    """One partition while this server holds its lease.

    Attributes:
        partition: its data in Redis.
        opened: what the last server left is known.
        closed: it is being given back: begin no delivery of it.
        streams: by tenant.
        claiming: handlers are about to come whose unfinished events are not known yet.
        away: handlers that are not served here, or not yet: another process may serve them.
    """

    def __init__(self, server: "Server", partition: Partition) -> None:
        self.partition = partition
        self.number = partition.number
        self.opened = False
        self.closed = False
        self.claiming = False
        self.streams: dict[str, TenantStream] = {}
        self.away = set(server.roster.handlers)
        self._server = server
        self._outage = Outage(log, "Redis")
        self._running = 0  # deliveries
        self._quiet = asyncio.Event()  # none runs any more, and none begins
        self.writer = Writer(
            partition, self._describe, lambda: server.runners.outstanding, self._outage.goes_on
        )
        self.folder = Folder(server, self) if server.folds else None
        self.redeliveries = Redeliveries(server, self)
        self.reader = Reader(server, self)
        self.takeover = Takeover(server, self)

    async def _open(self) -> None:
        """Find out what the last server left unfinished."""
        while await migrate(self.partition.redis, self.number):
            # Then look again: a failover may have come between.
            await self.partition.lease.take_anew()
        handlers = set(self._server.roster.handlers)
        self.away = handlers - await self.takeover.claim(handlers)
        await self.redeliveries.open()
        if self.folder is not None:
            await self.folder.open()
        names = {handler.name for handler in handlers - self.away}
        await self.takeover.load(await self.partition.to_load(names))
        self.opened = True

    async def run(self) -> None:
        """Serve the partition until cancelled.

        Raises:
            LeaseLost: another server serves it.
        """
        while not asked_to_end():
            try:
                await self._open()
                break
            except RedisError as error:
                self._outage.goes_on(error)
                await asyncio.sleep(0.2)
        parts = [
            self.reader.follow_marks(),
            self.reader.read(),
            self.writer.run(),
            self.redeliveries.run(),
        ]
        if self.folder is not None:
            parts.append(self.folder.run())
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(*tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def drain(self) -> bool:
        """Begin no more deliveries; return when those that run are finished and written.

        Returns:
            False if they cannot be written: `run` is about to end, with its error.
        """
        self.closed = True
        if self._running:
            await self._quiet.wait()
        for stream in self.streams.values():
            self.writer.mark(stream)
        return await self.writer.written()

    def drop(self) -> None:
        """Forget the entries in memory: another server has them now."""
        for stream in self.streams.values():
            for reading in stream.readings.values():
                reading.handler.released(len(reading.pending))
        for handler in self._server.roster.handlers:
            handler.forget(self.number)

    def began(self) -> None:
        """Count a delivery that runs."""
        self._running += 1

    def ended(self) -> None:
        self._running -= 1
        if self.closed and not self._running:
            self._quiet.set()

    # Entries

    def add(self, reading: Reading, position: bytes, event: CallEvent) -> None:
        """Put an event into its lane."""
        handler = reading.handler
        reading.pending[position] = None
        reading.changed = True
        handler.added()
        call = event.call
        name = (self.number, call)
        lane = handler.lanes.get(name)
        if lane is None:
            lane = handler.lanes[name] = Lane(self, handler, call)
            lane.parked = name in handler.parked
        lane.entries.append(
            Entry(reading, position, event, self._server.guard.attempts(handler, event))
        )
        if lane.parked:
            self.park_behind(lane)
        elif not lane.started:
            lane.started = True
            handler.start(lane)

    def park_behind(self, lane: Lane) -> None:
        """Move a parked lane's entries to Redis, unless Redis may be about to free the lane."""
        if not lane.handler.parked[self.number, lane.call]:
            self.writer.lanes.park_behind(lane)
            del lane.handler.lanes[self.number, lane.call]

    def done(self, entry: Entry) -> None:
        """Acknowledge an entry, which was delivered or is a dead letter."""
        reading = entry.reading
        reading.pending.pop(entry.position, None)
        reading.changed = True
        reading.handler.released()
        self.writer.mark(reading.stream)

    async def leave(self, handler: ServedHandler) -> None:
        """Leave a handler, which delivers nothing now, to another process."""
        if handler in self.away:
            return
        self.away.add(handler)
        for stream in self.streams.values():
            reading = stream.reading(handler)
            reading.own = reading.own or stream.read
            reading.changed = True
            self.reader.leave(reading)
            stream.wake = True
            self.writer.mark(stream)
        self.writer.lanes.give(handler.name, handler.name)
        if not await self.writer.written():
            return  # the partition was given back meanwhile
        for stream in self.streams.values():
            if handler in stream.readings:  # not in a stream that was adopted meanwhile
                handler.released(len(stream.readings.pop(handler).pending))

    def _describe(self, stream: TenantStream) -> object:
        explicit = bool(self._server.pool)
        pools = self._server.pools
        if stream.wake and pools:
            pools = self._server.roster.pools(stream.tenant, pools)
        return stream.changes(self.folder, pools, explicit=explicit)
