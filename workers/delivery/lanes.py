"""Lanes: the deliveries of one call to one handler, always in order. Different lanes overlap."""

import asyncio
from collections import deque

from offhook.inbox import Entry


class Lane:
    """The entries of one call that wait for one handler. One runner at a time works on it."""

    __slots__ = ("call", "entries")

    def __init__(self, call: str) -> None:
        self.call = call
        self.entries: deque[Entry] = deque()


class Lanes:
    """All lanes of a cursor that have something to deliver.

    A lane is handed out once, and again only after it was given back: so two runners never work
    on the same call.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._ready: asyncio.Queue[Lane] = asyncio.Queue()

    def __contains__(self, call: str) -> bool:
        return call in self._lanes

    def __len__(self) -> int:
        return len(self._lanes)

    def add(self, entry: Entry) -> None:
        """Put an entry at the end of its call's lane."""
        call = entry.event.call
        lane = self._lanes.get(call)
        if lane is None:
            lane = self._lanes[call] = Lane(call)
            self._ready.put_nowait(lane)
        lane.entries.append(entry)

    async def take(self) -> Lane:
        """The next lane that nobody works on, when there is one."""
        return await self._ready.get()

    def give_back(self, lane: Lane) -> None:
        """Its runner is done with it; it ends here unless entries came in the meantime."""
        if lane.entries:
            self._ready.put_nowait(lane)
        else:
            del self._lanes[lane.call]
