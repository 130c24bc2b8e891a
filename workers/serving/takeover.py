"""`Takeover`: continues in a partition where other processes stopped, or let go of handlers."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from offhook.errors import LeaseLost
from offhook.event import CallEvent
from offhook.inbox.stream_state import StreamState
from workers.serving.served import ServedHandler
from workers.serving.streams import TenantStream, after

if TYPE_CHECKING:
    from workers.serving.partition_server import Server
    from workers.serving.served_partition import ServedPartition

LOAD_AT_ONCE = 500  # streams

# By handler: positions and events.
Pending = dict[str, list[tuple[bytes, CallEvent]]]


class Takeover:
    """What other processes left in one partition."""

    def __init__(self, server: "Server", served: "ServedPartition") -> None:
        self._server = server
        self._served = served
        self._partition = served.partition
        # Those that Redis has not forgotten yet, and to where.
        self._replaying: dict[tuple[TenantStream, ServedHandler], bytes] = {}
        self._forgotten = 0  # how many it has forgotten

    async def load(self, tenants: Sequence[str]) -> None:
        """Continue with these tenants' streams, unless it is done.

        Leaves out those of tenants that are not configured, or not yet: their events wait for
        their handlers. A pool also leaves out those whose events none of its handlers gets.
        """
        known, pool = self._server.settings.tenants, self._server.pool
        tenants = [
            name
            for name in tenants
            if not name or (name in known and (not pool or self._server.roster.of(name)))
        ]
        for at in range(0, len(tenants), LOAD_AT_ONCE):
            some = tenants[at : at + LOAD_AT_ONCE]
            for name in some:
                starts = self._server.roster.starts(name)
                if starts:
                    await self._partition.register(name, starts)
            states = await self._partition.load(some)
            pending = [await self._pending(state) for state in states]
            await self._partition.lease.check()  # so this goes with what was read before
            for state, its in zip(states, pending, strict=True):
                if state.tenant not in self._served.streams:
                    self._adopt(state, its)

    async def _pending(self, state: StreamState) -> Pending:
        """The events that handlers served here had not finished."""
        found: Pending = {}
        for name, (_, positions) in state.records.items():
            handler = self._server.roster.get(name)
            if handler is None or not positions:
                continue
            items = await self._partition.events_at(state.tenant, positions)
            found[name] = [
                (position, event)
                for position, event in await self._served.reader.decoded(items, state.tenant)
                if event is not None
            ]
        return found

    def _adopt(self, state: StreamState, pending: Pending) -> None:
        stream = self._served.streams[state.tenant] = TenantStream(
            self._served, state.tenant, state.read
        )
        if self._served.folder is not None:
            self._served.folder.adopt(stream, state.folded)
        served = {
            handler.name: handler
            for handler in self._server.roster.of(state.tenant)
            if handler not in self._served.away
        }
        for name, handler in served.items():
            if name in state.records or self._server.pool:
                self._resume(stream, handler, state, pending)
        if not self._server.pool:
            self._freeze(stream, state, state.known - served.keys())
        self._replay(stream, state.replays)
        self._served.reader.look_at(state.tenant)
        self._served.writer.mark(stream)

    @staticmethod
    def _freeze(stream: TenantStream, state: StreamState, away: Collection[str]) -> None:
        """Write down where handlers are that are not served here: they no longer read along."""
        for name in away:
            own, pending = state.records.get(name, (None, []))
            if own is None:
                stream.frozen[name] = b" ".join((state.read, *pending))
                stream.wake = True

    def _resume(
        self,
        stream: TenantStream,
        handler: ServedHandler,
        state: StreamState,
        pending: Pending,
    ) -> None:
        own = state.records.get(handler.name, (None, []))[0] or state.shared
        reading = stream.reading(handler)
        reading.recorded = reading.changed = True
        if own != stream.read:
            reading.own = own
            self._served.reader.catch_up(reading)
        for position, event in pending.get(handler.name, ()):
            self._served.add(reading, position, event)

    async def claim(self, handlers: Collection[ServedHandler]) -> set[ServedHandler]:
        """Claim handlers from other pools. Return those that may be served here now."""
        wanted = {
            handler.name: handler for handler in sorted(handlers, key=_name) if not handler.apart
        }
        apart = {handler.name: handler.name for handler in handlers if handler.apart}
        others = self._server.roster.of_other_pools | apart
        refused = await self._partition.claim(list(wanted), others)
        return {handler for name, handler in wanted.items() if name not in refused}

    async def give(self) -> None:
        """Give other pools what is theirs, again: a failover may have lost that."""
        others = self._server.roster.of_other_pools
        if others and not self._served.closed:
            await self._partition.claim([], others)

    async def look(self) -> None:
        """Serve the handlers that other processes have left meanwhile."""
        away = {handler for handler in self._served.away if not handler.apart}
        self._served.claiming = bool(away)
        # A flush from before would say that the events which a claim brings are finished.
        if not (away and self._served.opened and await self._served.writer.arrived()):
            return
        try:
            claimed = await self.claim(away)
        except LeaseLost:
            if self._served.closed:
                return  # it was given back meanwhile
            raise
        for handler in sorted(claimed, key=_name):
            await self.come_back(handler)
        if claimed:
            self._served.claiming = claimed != away
            self._server.spawn(self.apply_replays)  # those that came while it was away

    async def come_back(self, handler: ServedHandler) -> None:
        """Serve a handler that another process has served: from the positions it left."""
        await self._served.redeliveries.adopt(handler)
        states: list[StreamState] = []
        pending: list[Pending] = []
        while len(states) < len(self._served.streams):  # others may be adopted meanwhile
            states = await self._partition.load(list(self._served.streams))
            pending = [await self._pending(state) for state in states]
            await self._partition.lease.check()
        # No wait from here: events that are read must find the handler away or where it has come.
        self._served.away.discard(handler)
        for state, its in zip(states, pending, strict=True):
            stream = self._served.streams[state.tenant]
            self._resume(stream, handler, state, its)
            self._served.writer.mark(stream)
            self._replay(stream, state.replays)

    async def apply_replays(self, tenants: Sequence[str] | None = None) -> None:
        """Set handlers back, as an operator has asked.

        Args:
            tenants: those with unfinished events, if they were just read.
        """
        if tenants is None:
            tenants = await self._partition.unfinished()
        await self.load([name for name in tenants if name not in self._served.streams])
        forgotten, found = None, {}
        while forgotten != self._forgotten:  # else it may show one that was done meanwhile
            forgotten = self._forgotten
            found = await self._partition.replays(tenants)
        for tenant, replays in found.items():
            if tenant in self._served.streams:
                self._replay(self._served.streams[tenant], replays)

    def _replay(self, stream: TenantStream, replays: Mapping[str, bytes]) -> None:
        """Set back the handlers that are served here; let the pools of the others do so."""
        pools = set()
        for name, position in replays.items():
            handler = self._server.roster.get(name)
            if handler is not None and handler not in self._served.away:
                self._set_back(stream, handler, position)
            elif not self._server.pool:
                pools.add(self._server.roster.pool_of(name) or "")
        for pool in sorted(pools - {""}):
            self._server.spawn(partial(self._partition.pass_on_replays, stream.tenant, pool))

    def _set_back(self, stream: TenantStream, handler: ServedHandler, position: bytes) -> None:
        if self._replaying.get((stream, handler)) == position:
            return
        self._replaying[stream, handler] = position
        reading = stream.reading(handler)
        if after(reading.own or stream.read, position):
            reading.own, reading.changed = position, True
            self._served.reader.catch_up(reading)
            self._served.writer.mark(stream)
        self._server.spawn(partial(self._forget_replay, stream, handler, position))

    async def _forget_replay(
        self, stream: TenantStream, handler: ServedHandler, position: bytes
    ) -> None:
        if await self._served.writer.written():  # else the next server sets it back
            await self._partition.replayed(stream.tenant, handler.name, position)
        if self._replaying.get((stream, handler)) == position:
            del self._replaying[stream, handler]
        self._forgotten += 1


def _name(handler: ServedHandler) -> str:
    return handler.name
