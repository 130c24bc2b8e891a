"""Lanes: the deliveries of one call to one handler, in order. Different lanes overlap."""

from collections import deque
from typing import TYPE_CHECKING

from offhook.event import CallEvent, from_stored

if TYPE_CHECKING:
    from workers.serving.served import ServedHandler
    from workers.serving.served_partition import ServedPartition
    from workers.serving.streams import Reading


class Entry:
    """One event for one handler.

    Attributes:
        position: in the stream.
        attempts: number of attempts made that count.
    """

    __slots__ = ("attempts", "event", "position", "reading")

    def __init__(
        self, reading: "Reading", position: bytes, event: CallEvent, attempts: int
    ) -> None:
        self.reading = reading
        self.position = position
        self.event = event
        self.attempts = attempts


class Lane:
    """The waiting entries of one call for one handler.

    Attributes:
        parked: Redis has events of this call that come first.
        started: it is ready, running, or waits for the handler; else only a new entry starts it.
    """

    __slots__ = ("call", "entries", "handler", "parked", "partition", "started")

    def __init__(self, partition: "ServedPartition", handler: "ServedHandler", call: str) -> None:
        self.partition = partition
        self.handler = handler
        self.call = call
        self.entries: deque[Entry] = deque()
        self.parked = False
        self.started = False


class Redelivery:
    """The next attempt at the event that a parked lane waits for.

    Attributes:
        event: None if it cannot be read.
        unreadable: the stored event, and why that cannot be read; else None.
        attempt: its number, without those that ended their process.
        lost: an earlier process began it, and may have finished it.
    """

    __slots__ = ("attempt", "call", "event", "handler", "lost", "partition", "unreadable")

    def __init__(
        self,
        partition: "ServedPartition",
        handler: "ServedHandler",
        call: str,
        stored: bytes,
        attempt: int,
    ) -> None:
        self.partition = partition
        self.handler = handler
        self.call = call
        self.follow(stored, attempt)

    def follow(self, stored: bytes, attempt: int = 1) -> None:
        """Take the event that the lane waits for now."""
        self.attempt, self.lost = attempt, False
        self.event: CallEvent | None = None
        self.unreadable: tuple[bytes, Exception] | None = None
        try:
            self.event = from_stored(stored)
        except (ValueError, RecursionError) as error:
            self.unreadable = stored, error


Work = Lane | Redelivery
