"""`Reader`: reads a partition's streams and hands each event to the handlers that want it."""

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from offhook.calls import extensions_in
from offhook.event import CallEvent, from_stored
from offhook.inbox import quarantine
from offhook.inbox.partition import DUE, Item
from offhook.logs import Outage
from offhook.tasks import asked_to_end
from workers.serving.streams import Events, Reading, TenantStream, after
from workers.serving.turns import STEP

if TYPE_CHECKING:
    from workers.serving.partition_server import Server
    from workers.serving.served_partition import ServedPartition

log = logging.getLogger("offhook.serve")

STREAMS_AT_ONCE = 128
WAIT = 2.0  # seconds that a read of marks blocks
PATIENCE = 0.1  # seconds for which a stream is held while its handlers have enough events
SWEEP_EVERY = 5.0  # seconds between searches for events and replays whose mark was lost


class Reader:
    """Reads the streams of one partition."""

    def __init__(self, server: "Server", served: "ServedPartition") -> None:
        self._server = server
        self._served = served
        self._partition = served.partition
        # Tenants whose streams to read, and whether other pools know that there are events.
        self._unread: dict[str, bool] = {}
        self._held: dict[str, float] = {}  # since when their handlers have enough
        self._again: asyncio.TimerHandle | None = None
        self._lagging: dict[Reading, None] = {}  # those that read for themselves and have room
        self._wake = asyncio.Event()
        self._outage = Outage(log, "Redis")

    def look_at(self, tenant: str) -> None:
        """Read a tenant's stream soon."""
        self._unread[tenant] = False
        self._wake.set()

    def catch_up(self, reading: Reading) -> None:
        """Let a handler that fell behind read for itself, now that it has room."""
        self._lagging[reading] = None
        self._wake.set()

    def leave(self, reading: Reading) -> None:
        """Read no more for a handler."""
        self._lagging.pop(reading, None)
        reading.stream.later.pop(reading, None)

    async def follow_marks(self) -> None:
        """Look at the tenants that get events, until cancelled."""
        sweep = time.monotonic() + SWEEP_EVERY
        lost: list[str] = []
        while not asked_to_end():
            unfinished: list[str] | None = None
            try:
                marks = lost + await self._partition.marks(WAIT)
                if time.monotonic() >= sweep:
                    sweep = time.monotonic() + SWEEP_EVERY
                    unfinished = await self._partition.unfinished()
                    marks += [DUE, *unfinished]
                    self._served.writer.check()
                    await self._served.takeover.give()
                for mark in marks:
                    if mark != DUE:
                        self.look_at(mark)
                if DUE in marks:
                    self._served.redeliveries.look()
                    await self._served.takeover.apply_replays(unfinished)
            except RedisError as error:
                self._outage.goes_on(error)
                await asyncio.sleep(0.2)
                sweep, lost = 0.0, [DUE]  # marks in a lost response are gone
            else:
                lost = []
                self._outage.is_over()

    async def read(self) -> None:
        """Read until cancelled."""
        while not asked_to_end():
            await self._wake.wait()
            self._wake.clear()
            while (self._unread or self._lagging) and not self._served.closed:
                try:
                    if not await self._read_some():
                        break
                except RedisError as error:
                    self._outage.goes_on(error)
                    await asyncio.sleep(0.2)

    async def _read_some(self) -> bool:
        """Read once, what there is room for. Return whether to go on at once."""
        with self._server.reading.taking(self._wake.set) as is_mine:
            lagging = next((each for each in self._lagging if is_mine(each.stream.tenant)), None)
            if lagging is not None:
                await self._catch_up(lagging)
            readable = self._readable()[:STREAMS_AT_ONCE]
            read = await self._read_streams(
                [name for name in readable if not self._has_more(name) or is_mine(name)]
            )
        return read or (lagging is not None and bool(self._lagging))

    async def _read_streams(self, tenants: list[str]) -> bool:
        """Read the streams of tenants. Return whether there were any to read."""
        if self._server.pools:
            self._wake_pools({*tenants})
        if not tenants:
            self._server.runners.blocked.add(self._wake.set)
            self._look_again()
            return False
        await self._served.takeover.load(
            [name for name in tenants if name not in self._served.streams]
        )
        for name in tenants:
            # Before the read: a mark that comes meanwhile may be of events that it does not see.
            self._unread.pop(name, None)
        tenants = [name for name in tenants if name in self._served.streams]
        if not tenants:
            return True
        streams = [self._served.streams[name] for name in tenants]
        with self._server.roster.reserved(streams) as count:
            try:
                positions = {each.tenant: each.read for each in streams}
                found = await self._partition.read(positions, count)
            except RedisError:
                self._unread |= dict.fromkeys(tenants, False)
                raise
            # With the room reserved: meanwhile, others would read what there is no room for.
            events = {name: await self.decoded(found.get(name, ()), name) for name in tenants}
        for stream in streams:
            stream.more = len(events[stream.tenant]) == count
            if stream.more:
                self._unread[stream.tenant] = True
            self._take_in(stream, events[stream.tenant])
        await asyncio.sleep(0)
        return True

    def _wake_pools(self, tenants: Collection[str]) -> None:
        """Let other pools read what is not read now, because the handlers here have enough."""
        for name, known in self._unread.items():
            stream = self._served.streams.get(name)
            if stream is not None and not known and name not in tenants:
                self._unread[name] = stream.wake = True
                self._served.writer.mark(stream)

    def _readable(self) -> list[str]:
        """The tenants whose streams to read now.

        While its handlers have enough events, a stream is held for a moment. Then those with
        enough fall behind: others, and the calls, must not wait for a target that is down.
        """
        now, plenty = time.monotonic(), self._server.runners.has_plenty
        found = []
        for name in self._unread:
            stream = self._served.streams.get(name)
            if stream is None or self._server.roster.may_read(name, stream.readings):
                self._held.pop(name, None)
            elif plenty or now - self._held.setdefault(name, now) < PATIENCE:
                continue
            found.append(name)
        return found

    def _look_again(self) -> None:
        """Look again at streams that are held, also if their handlers finish nothing."""
        loop = asyncio.get_running_loop()
        if self._unread and (self._again is None or self._again.when() <= loop.time()):
            self._again = loop.call_later(PATIENCE, self._wake.set)

    def _has_more(self, tenant: str) -> bool:
        stream = self._served.streams.get(tenant)
        return stream is not None and stream.more

    def _take_in(self, stream: TenantStream, events: Events) -> None:
        before = stream.read
        for position, event in events:
            if event is not None:
                self._hand_out(stream, before, position, event)
            before = position
        stream.read = before
        if events:
            stream.wake = True
            for reading in stream.later:
                self._lagging[reading] = None
            stream.later.clear()
            if self._served.folder is not None:
                self._served.folder.take_in(stream, events)
        self._served.writer.mark(stream)

    def _hand_out(
        self, stream: TenantStream, before: bytes, position: bytes, event: CallEvent
    ) -> None:
        """Give an event to the handlers that want it; one that has enough falls behind."""
        for handler in self._server.roster.wanting(stream.tenant, event):
            if handler in self._served.away:
                continue
            reading = stream.reading(handler)
            if reading.own is not None:
                continue  # it reads for itself
            if handler.apart or handler.is_full:
                reading.own, reading.changed = before, True
                stream.later[reading] = None
            else:
                self._served.add(reading, position, event)

    async def _catch_up(self, reading: Reading) -> None:
        """Let a handler that fell behind read for itself, until it has come as far as others."""
        handler, stream = reading.handler, reading.stream
        del self._lagging[reading]
        if reading.own is None or handler.apart:
            return
        if not handler.has_room:
            handler.behind[reading] = None
            return
        if after(reading.own, stream.read):
            stream.later[reading] = None  # the others come to where it begins
            return
        began_at, count = reading.own, handler.read_at_once
        if self._server.settings.tenants:
            count = min(count, STEP)
        try:
            items = await self._partition.range(stream.tenant, began_at, stream.read, count)
        except RedisError:
            self._lagging[reading] = None
            raise
        events = await self.decoded(items)
        if handler in self._served.away or reading.own is not began_at:
            return  # it left, or was set back, meanwhile
        for position, event in events:
            if event is not None and handler in self._server.roster.wanting(stream.tenant, event):
                self._served.add(reading, position, event)
            reading.own = position
        if len(items) < count:
            reading.own = None
        else:
            self._lagging[reading] = None
        reading.changed = True
        self._served.writer.mark(stream)

    async def decoded(
        self, items: Sequence[Item], set_aside: str | None = None
    ) -> list[tuple[bytes, CallEvent | None]]:
        """The events, once the settings of their extensions are loaded; None for an unreadable one.

        Args:
            set_aside: the tenant into whose quarantine those go; None: into none.
        """
        events: list[tuple[bytes, CallEvent | None]] = []
        for position, stored in items:
            try:
                events.append((position, from_stored(stored)))
            except (ValueError, RecursionError) as error:
                events.append((position, None))
                if set_aside is not None:
                    log.error("event %s cannot be read, set aside: %s", position.decode(), error)
                    reason = f"an event in the inbox that cannot be read: {error}"
                    size = self._server.settings.quarantine_size
                    redis = self._partition.redis
                    await quarantine.set_aside(redis, stored, reason, size, set_aside)
        named = {name for _, event in events if event for name in extensions_in(event)}
        # Last: the events are handed out at once, by settings that have not changed meanwhile.
        await self._server.until_done(partial(self._server.extensions.load, named))
        return events
