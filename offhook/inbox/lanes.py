"""`ParkedLanes`: a handler's parked lanes, each the undelivered events of one call, in order.

The first event of a parked lane waits for its redelivery, the others wait behind it.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from redis.commands.core import AsyncScript

from offhook.event import CallEvent, from_stored, to_stored
from offhook.inbox import keys
from offhook.inbox.scripts import script
from offhook.inbox.stream import Inbox


class ParkedLanes:
    """The parked lanes of one handler."""

    def __init__(self, inbox: Inbox, handler: str) -> None:
        self._inbox = inbox
        self._handler = handler
        self._rejoin: AsyncScript = inbox.redis.register_script(script("rejoin"))

    async def events(self, partition: int, call: str) -> list[CallEvent]:
        """The events of a lane, in order; none if it is not parked."""
        lane = keys.lane(partition, self._handler, call)
        stored: Any = await self._inbox.redis.lrange(lane, 0, -1)
        return [from_stored(each) for each in stored]

    async def rejoin(self, events: Sequence[CallEvent]) -> None:
        """Put dead letters back at the end of their lanes, to be redelivered at once."""
        arguments: defaultdict[int, list[str | bytes]] = defaultdict(list)
        await self._inbox.numbering.load()
        places = await self._inbox.numbering.places(event.call for event in events)
        for event in events:
            arguments[places[event.call]] += (event.call, event.id, to_stored(event))
        for partition, those in arguments.items():
            await self._rejoin(
                keys=[
                    keys.parked(partition),
                    keys.attempts(partition),
                    keys.due(partition),
                    keys.ready(partition),
                ],
                args=[
                    self._handler,
                    keys.lane(partition, self._handler, ""),
                    int(time.time() * 1000),
                    *those,
                ],
            )
