"""`Feeds`: the live feed of each tenant, made when it is first asked for."""

import asyncio

from redis import Redis

from offhook.inbox import Inbox
from offhook.settings import Settings
from offhook.tasks import end
from offhook_console.labels import ExtensionLabels
from offhook_console.live_feed import LiveFeed
from offhook_console.rendering import Pages

_CANCEL_AGAIN = 1.0  # seconds in which a feed ends its tasks, and these theirs
_PING = 15.0  # seconds; proxies close connections that are silent for a minute


class Feeds(dict[str, LiveFeed]):
    """The live feeds, by tenant; empty: the operator's."""

    def __init__(self, settings: Settings, inbox: Inbox, rq: Redis) -> None:
        super().__init__()
        self.pages = Pages(
            lambda person: self[person.tenant].counts(person.view), settings.console.answer_within
        )
        self.labels = ExtensionLabels(settings, inbox.redis)
        self._settings = settings
        self._inbox = inbox
        self._rq = rq
        self._reading = [asyncio.create_task(self._ping())]

    def __missing__(self, tenant: str) -> LiveFeed:
        feed = LiveFeed(self._settings, self._inbox, self._rq, self.pages, self.labels, tenant)
        self[tenant] = feed
        self._reading.append(asyncio.create_task(feed.run()))
        return feed

    def begin(self, tenant: str) -> None:
        """Read a tenant's events from now on."""
        self[tenant]

    async def loaded(self, seconds: float) -> None:
        """Wait until the calls of the day are known, but no longer than this."""
        tasks = [asyncio.create_task(feed.loaded.wait()) for feed in self.values()]
        await asyncio.wait(tasks, timeout=seconds)
        await end(*tasks)

    def end_streams(self) -> None:
        """End all streams: the browsers come back."""
        for feed in self.values():
            feed.listeners.close()

    async def close(self) -> None:
        """End all streams, and read no more."""
        self.end_streams()
        await end(*self._reading, again=_CANCEL_AGAIN)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(_PING)
            for feed in list(self.values()):
                await feed.listeners.ping()
