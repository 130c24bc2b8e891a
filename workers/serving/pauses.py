"""`Pauses`: follows which handlers a person has paused."""

import logging

from redis.asyncio import Redis

from offhook.inbox.paused import paused_handlers
from workers.serving.roster import Roster

log = logging.getLogger("offhook.serve")


class Pauses:
    """Pauses and resumes the handlers of one server, as people have asked."""

    def __init__(self, roster: Roster, redis: Redis) -> None:
        self._roster = roster
        self._redis = redis

    async def look(self) -> None:
        """Look which handlers are paused now.

        Raises:
            RedisError: the server does not answer; all stay as they are.
        """
        paused = await paused_handlers(self._redis)
        for handler in self._roster.handlers:
            if handler.paused != (handler.name in paused):
                handler.paused = not handler.paused
                said = "is paused: its events wait" if handler.paused else "is resumed"
                log.warning("handler %s %s", handler.name, said)
                handler.look()
                handler.use_room()
