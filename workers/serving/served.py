"""`ServedHandler`: a handler in a server: its limit, its lanes, its circuit, its threads."""

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from offhook.handler_memory import Memory
from offhook.plugins import PluggedHandler
from workers.delivery.circuit import Circuit
from workers.serving.lanes import Lane, Redelivery, Work
from workers.serving.pace import Pace
from workers.serving.runners import Runners

if TYPE_CHECKING:
    from workers.serving.streams import Reading

READ_AT_ONCE = 500  # events that a handler reads for itself
_FEW = 8  # handlers with fewer entries take turns with those that have more


class TenantRoom:
    """How many calls all handlers of a tenant may work on, in this process.

    Attributes:
        waiting: the handlers that wait for their turn, in order.
    """

    __slots__ = ("_most", "_running", "waiting")

    def __init__(self, most: int) -> None:
        self._most = most
        self._running = 0
        self.waiting: dict[ServedHandler, None] = {}

    @property
    def is_full(self) -> bool:
        """Return whether no delivery may begin."""
        return self._running >= self._most

    def enter(self) -> None:
        """Count a delivery that begins."""
        self._running += 1

    def leave(self) -> None:
        """A delivery has ended: let the next handler begin one."""
        self._running -= 1
        if self.waiting:
            handler = next(iter(self.waiting))
            del self.waiting[handler]
            handler.look()  # it waits again, behind the others, if it has more


class ServedHandler:
    """One handler, in all partitions that the server serves.

    Attributes:
        name: in the configuration.
        outstanding: number of entries in memory.
        room: maximum of these; beyond it the handler falls behind and reads for itself.
        behind: its places in streams that it reads for itself once it has room.
        lanes: its lanes with entries, by partition number and call.
        parked: calls whose events wait in Redis; True while it is not known whether there are more.
        apart: it is about to move to another process: begin no delivery.
        paused: a person has paused it: begin no delivery, and read nothing for it.
        grown: bytes by which the process grew while it ran.
        lost_threads: threads that hang in the handler.
        pace: how many entries it finishes in a second.
    """

    __slots__ = (
        "_held",
        "_least",
        "_room",
        "_runners",
        "_running",
        "_threads",
        "_timer",
        "apart",
        "behind",
        "circuit",
        "grown",
        "lanes",
        "lost_threads",
        "memory",
        "name",
        "outstanding",
        "pace",
        "parked",
        "paused",
        "plugged",
        "refused",
        "room",
        "tenant",
    )

    def __init__(
        self,
        plugged: PluggedHandler,
        tenant: str,
        memory: Memory,
        runners: Runners,
        room: TenantRoom | None = None,
    ) -> None:
        self.plugged = plugged
        self._room = room
        self.name = plugged.name
        self.tenant = tenant
        self.memory = memory
        self._least = 2 * plugged.policy.concurrency
        self.room = max(1000, self._least)
        self.outstanding = 0
        self.lanes: dict[tuple[int, str], Lane] = {}
        self.parked: dict[tuple[int, str], bool] = {}
        self.behind: dict[Reading, None] = {}
        self.circuit = Circuit()
        self.apart = False
        self.paused = False
        self.lost_threads = 0
        self.pace = Pace()
        self.grown = 0.0
        self.refused = ""  # the extension of the last failed probe
        self._runners = runners
        self._threads: ThreadPoolExecutor | None = None
        self._running = 0
        self._held: deque[Work] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def most(self) -> int:
        """How many entries it may have: its share, if many handlers have some."""
        return min(self.room, max(self._least, self._runners.share))

    @property
    def is_full(self) -> bool:
        """Return whether it has as many entries as it may."""
        return self.paused or self.outstanding >= self.most

    @property
    def has_room(self) -> bool:
        """Return whether it may read on after it fell behind."""
        return not self.paused and self.outstanding <= self.most // 2

    @property
    def may_have_more(self) -> bool:
        """Return whether to read on for it, besides what is being read.

        Once there are many entries of others, only if it has none: else those that happen to have
        their turn first would lead all others to fall behind.
        """
        mine = self.outstanding + self._runners.reserved
        return mine <= self.most // 2 and not (mine and self._runners.has_plenty)

    @property
    def read_at_once(self) -> int:
        """How many events to read for it at once, if it reads for itself."""
        return max(1, min(READ_AT_ONCE, self.most - self.outstanding))

    @property
    def idle(self) -> bool:
        """Return whether no delivery runs."""
        return not self._running

    def start(self, work: Work) -> None:
        """Work on this as soon as the handler's limit and its circuit admit it."""
        if not self._held and self._admits():
            self._begin(work)
        else:
            self._held.append(work)
            self._wake()

    def put_back(self, work: Work) -> None:
        """Put work that has begun back: the handler is paused, or its circuit is not closed.

        The next probe is another's.
        """
        self._held.append(work)
        self.finished()

    def continue_later(self, work: Work) -> None:
        """Let others have a turn before work that has begun goes on."""
        self._runners.start(work)

    def finished(self) -> None:
        """Work has ended: let the next begin."""
        self._running -= 1
        if self._room is not None:
            self._room.leave()
        self.look()

    def look(self) -> None:
        """Begin what the limit and the circuit admit now."""
        while self._held and self._admits():
            self._begin(self._next())
        if self._held or self._timer is not None:
            self._wake()

    @property
    def threads(self) -> ThreadPoolExecutor:
        """Where a plain handler runs."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.plugged.policy.concurrency, "handler")
        return self._threads

    def replace_threads(self) -> None:
        """Take new threads, because one hangs."""
        self.lost_threads += 1
        self.close()

    def added(self) -> None:
        """Note that an entry is in memory."""
        runners = self._runners
        runners.wanted[self] = None
        runners.outstanding += 1
        if not self.outstanding:
            runners.busier(1)
        self.outstanding += 1

    def released(self, entries: int = 1) -> None:
        """Note that entries have left the memory: those that fell behind may have room now."""
        if entries:
            self.outstanding -= entries
            self.pace.finished += entries
            self._runners.outstanding -= entries
            if not self.outstanding:
                self._runners.busier(-1)
            if self.behind or self._runners.blocked:
                self.use_room()

    def use_room(self) -> None:
        """Let the places in streams that fell behind read on, if there is room."""
        if self._runners.blocked and self.may_have_more:
            self._runners.unblock()
        if self.behind and self.has_room:
            behind, self.behind = self.behind, {}
            for reading in behind:
                reading.stream.served.reader.catch_up(reading)

    def forget(self, partition: int | None = None) -> None:
        """Forget the work of a partition that another server has now, or all."""

        def stays(number: int) -> bool:
            return partition not in (None, number)

        for work in self._held:
            if isinstance(work, Redelivery) and not stays(work.partition.number):
                work.partition.redeliveries.ended(work)
        self._held = deque(work for work in self._held if stays(work.partition.number))
        self.lanes = {name: lane for name, lane in self.lanes.items() if stays(name[0])}
        self.parked = {name: free for name, free in self.parked.items() if stays(name[0])}
        self.behind = {each: None for each in self.behind if stays(each.stream.served.number)}
        self.use_room()

    def close(self) -> None:
        """Let go of the threads; those that hang cannot be stopped."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    def _admits(self) -> bool:
        if self.apart or self.paused or self._running >= self.plugged.policy.concurrency:
            return False
        if self._room is not None and self._room.is_full:
            self._room.waiting[self] = None
            return False
        return self.circuit.state == "closed" or self.circuit.try_probe()

    def _next(self) -> Work:
        """The work to begin; as a probe, that of another extension than the last one refused."""
        if self.circuit.state != "closed" and self.refused:
            for index, work in enumerate(self._held):
                if _extension(work) != self.refused:
                    del self._held[index]
                    return work
        return self._held.popleft()

    def _begin(self, work: Work) -> None:
        self._running += 1
        if self._room is not None:
            self._room.enter()
        self._runners.start(work, first=self.outstanding < _FEW)

    def _wake(self) -> None:
        """Look again when the next probe is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held and self.circuit.state == "open":
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.circuit.probe_in + 0.001, self.look)


def _extension(work: Work) -> str:
    event = (work.entries[0] if isinstance(work, Lane) else work).event
    return "" if event is None else event.extension
