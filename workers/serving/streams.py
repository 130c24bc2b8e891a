"""Streams: how far each handler has come in a tenant's stream, and what of it is unfinished."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from offhook.event import CallEvent
from offhook.inbox.partition import StreamChange
from offhook.inbox.positions import order_of

if TYPE_CHECKING:
    from workers.serving.folding import Folder
    from workers.serving.served import ServedHandler
    from workers.serving.served_partition import ServedPartition


Events = Sequence[tuple[bytes, CallEvent | None]]  # None: it cannot be read


class Reading:
    """A handler's place in one stream. It exists only while there is something to remember.

    Attributes:
        pending: positions of the entries in memory, oldest first.
        own: the handler's own position while it reads for itself; None: it reads with the others.
        recorded: Redis has a record of it.
        changed: the record is out of date.
    """

    __slots__ = ("changed", "handler", "own", "pending", "recorded", "stream")

    def __init__(self, handler: "ServedHandler", stream: "TenantStream") -> None:
        self.handler = handler
        self.stream = stream
        self.pending: dict[bytes, None] = {}
        self.own: bytes | None = None
        self.recorded = False
        self.changed = True


class TenantStream:
    """A tenant's stream in one partition.

    Attributes:
        read: how far the handlers have read together.
        readings: of the handlers that have not finished what was read.
        frozen: records of handlers that are not served here and still have none of their own.
        later: readings that read for themselves once more was read.
        more: it has more events than were read at once.
        dirty: something has changed since the last flush.
        wake: pools whose handlers may want what was read.
    """

    __slots__ = (
        "dirty",
        "frozen",
        "later",
        "more",
        "read",
        "readings",
        "served",
        "tenant",
        "wake",
    )

    def __init__(self, served: "ServedPartition", tenant: str, read: bytes) -> None:
        self.served = served
        self.tenant = tenant
        self.read = read
        self.readings: dict[ServedHandler, Reading] = {}
        self.frozen: dict[str, bytes] = {}
        self.later: dict[Reading, None] = {}
        self.more = False
        self.dirty = False
        self.wake = False

    def reading(self, handler: "ServedHandler") -> Reading:
        """The handler's place, made if there is none."""
        found = self.readings.get(handler)
        if found is None:
            found = self.readings[handler] = Reading(handler, self)
        return found

    def changes(self, folder: "Folder | None", pools: list[str], *, explicit: bool) -> StreamChange:
        """What a flush writes: see flush.lua. Forgets the readings that are finished.

        Args:
            pools: those to wake if events were read.
            explicit: write every handler's position, also while it equals the stream's.
        """
        records: list[str] = []
        finished = not (self.more or self.served.claiming)
        finished = finished and (folder is None or folder.caught_up(self))
        for reading in list(self.readings.values()):
            done = not reading.pending and reading.own is None
            if not done:
                finished = False
            if reading.changed or explicit:
                reading.changed = False
                if not done or explicit:
                    position = reading.own or (self.read if explicit else b"-")
                    record = b" ".join((position, *reading.pending))
                    records += (reading.handler.name, record.decode())
                    reading.recorded = True
                elif reading.recorded:
                    records += (reading.handler.name, "")
            if done and not explicit:
                del self.readings[reading.handler]
        frozen = [each for name, record in self.frozen.items() for each in (name, record.decode())]
        self.frozen.clear()
        wake = pools if self.wake else []
        self.dirty = self.wake = False
        return self.tenant, self.read.decode(), int(finished), wake, records, frozen


def after(position: bytes, other: bytes) -> bool:
    """Return whether a position comes after another one."""
    return order_of(position) > order_of(other)
