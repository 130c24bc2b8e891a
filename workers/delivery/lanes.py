"""Lanes: the deliveries of one call to one handler, in order. Different lanes overlap."""

import asyncio
from collections import deque

from offhook.inbox import Entry


class Lane:
    """The waiting entries of one call. One task at a time works on it."""

    __slots__ = ("call", "entries")

    def __init__(self, call: str) -> None:
        self.call = call
        self.entries: deque[Entry] = deque()


class Lanes:
    """The lanes of a cursor. `take` hands out a lane again only after `give_back`."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._ready: asyncio.Queue[Lane] = asyncio.Queue()

    def __contains__(self, call: str) -> bool:
        return call in self._lanes

    def __len__(self) -> int:
        return len(self._lanes)

    def add(self, entry: Entry) -> None:
        """Append an entry to its call's lane."""
        call = entry.event.call
        lane = self._lanes.get(call)
        if lane is None:
            lane = self._lanes[call] = Lane(call)
            self._ready.put_nowait(lane)
        lane.entries.append(entry)

    async def take(self) -> Lane:
        """Wait for a lane that no task works on."""
        return await self._ready.get()

    def give_back(self, lane: Lane) -> None:
        """Return a lane that was taken. It is removed unless it has new entries."""
        if lane.entries:
            self._ready.put_nowait(lane)
        else:
            del self._lanes[lane.call]
