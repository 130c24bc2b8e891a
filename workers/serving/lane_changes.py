"""`LaneChanges`: what is done with parked lanes, and is to be written in the next flush."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from offhook.event import CallEvent, to_stored
from workers.serving.lanes import Lane, Redelivery
from workers.serving.streams import TenantStream

Advanced = asyncio.Future[bytes]


class LaneChanges:
    """The changes of parked lanes, in the order in which they were made.

    Args:
        mark: notes a stream of which an entry was parked.
        wanted: called with each change: there is something to write.

    Attributes:
        advancing: the answers that `advance` waits for.
    """

    def __init__(self, mark: Callable[[TenantStream], None], wanted: Callable[[], None]) -> None:
        self._mark = mark
        self._wanted = wanted
        self._changes: list[tuple[Any, ...]] = []
        self._stored: list[bytes] = []
        self.advancing: list[Advanced] = []

    def take(self) -> tuple[list[tuple[Any, ...]], list[bytes], list[Advanced]]:
        """Take the changes, the events that these push, and the futures that wait for them."""
        taken = self._changes, self._stored, self.advancing
        self._changes, self._stored, self.advancing = [], [], []
        return taken

    def park(self, lane: Lane, attempts: int, due: float) -> None:
        """Park a lane whose first entry failed: move all its entries to Redis.

        Args:
            attempts: made for the first entry.
            due: when its redelivery is due, in seconds since 1970.
        """
        entries = self._moved(lane)
        self._change(
            "park",
            lane.handler.name,
            lane.call,
            entries[0].id,
            attempts,
            _milliseconds(due),
            len(entries),
        )

    def park_behind(self, lane: Lane) -> None:
        """Move a parked lane's new entries to Redis, behind those that are there."""
        self._change("behind", lane.handler.name, lane.call, len(self._moved(lane)))

    def advance(self, work: Redelivery) -> Advanced:
        """Remove the event that a lane waits for; the result is its next one, or b""."""
        self._change("advance", work.handler.name, work.call)
        answer: Advanced = asyncio.get_running_loop().create_future()
        self.advancing.append(answer)
        return answer

    def again(self, handler: str, call: str, attempts: int, due: float) -> None:
        """Make a redelivery due again."""
        self._change("again", handler, call, attempts, _milliseconds(due))

    def give(self, handler: str, pool: str) -> None:
        """Let another pool claim a handler."""
        self._change("give", handler, pool)

    def pass_on(self, handler: str, call: str, pool: str, due: float) -> None:
        """Leave a redelivery that has begun to a pool."""
        self._change("pass", handler, call, pool, _milliseconds(due))

    def lost(self, lanes: Iterable[tuple[str, str]], due: float) -> None:
        """Make redeliveries (handler and call) due that have begun, and run nowhere."""
        for handler, call in lanes:
            self._change("lost", handler, call, _milliseconds(due))

    def _moved(self, lane: Lane) -> list[CallEvent]:
        """Take the entries off a lane: the next flush acknowledges them."""
        events = []
        while lane.entries:
            entry = lane.entries.popleft()
            entry.reading.pending.pop(entry.position, None)
            entry.reading.changed = True
            lane.handler.released()
            self._stored.append(to_stored(entry.event))
            self._mark(entry.reading.stream)
            events.append(entry.event)
        return events

    def _change(self, *change: Any) -> None:
        self._changes.append(change)
        self._wanted()


def _milliseconds(moment: float) -> str:
    return str(int(moment * 1000))
