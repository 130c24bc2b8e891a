"""What the live feed tells browsers, and whom."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from offhook.connection import connected
from offhook.inbox import keys
from offhook.inbox.missed_calls import MissedCalls
from offhook.inbox.numbering import LAYOUT
from offhook.settings import load_settings
from offhook_console.labels import ExtensionLabels
from offhook_console.listeners import AHEAD, PING, FeedMessage, Listeners
from offhook_console.live_feed import LiveFeed
from offhook_console.people import View
from offhook_console.rendering import Pages
from tests.conftest import Configure
from tests.offhook_console.conftest import place
from unifiedapi.sandbox.scenarios import ScriptedCall

ALL, MASKED = View(masked=False), View(masked=True)
OWN = View(masked=False, own=frozenset({"0003*299"}))
TENANT = '[tenants.acme]\nextensions = ["main/0003**"]\n'


@asynccontextmanager
async def running(tenant: str = "") -> AsyncIterator[LiveFeed]:
    settings = load_settings()
    async with connected(settings) as (inbox, rq):
        labels = ExtensionLabels(settings, inbox.redis)
        feed = LiveFeed(settings, inbox, rq, Pages(lambda person: {}), labels, tenant)
        reading = asyncio.create_task(feed.run())
        await asyncio.wait_for(feed.loaded.wait(), 30)
        yield feed
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading


class Browser:
    """Collects the messages of a view."""

    def __init__(self, feed: LiveFeed, view: View) -> None:
        self.got: list[FeedMessage] = []
        self.ended = asyncio.create_task(self._read(feed, view))

    async def _read(self, feed: LiveFeed, view: View) -> None:
        with feed.listening(view) as listener:
            while messages := await listener.batch():
                self.got += messages

    @property
    def html(self) -> str:
        return " ".join(each.data for each in self.got if each.event == "fragments")

    async def until(self, text: str) -> None:
        async with asyncio.timeout(30):
            while text not in self.html:
                await asyncio.sleep(0.02)


async def test_a_call_is_pushed_as_each_view_sees_it(configure: Configure) -> None:
    configure()
    async with running() as feed:
        full, masked, other = (Browser(feed, view) for view in (ALL, MASKED, OWN))
        await asyncio.sleep(0)
        call = await place("answered", 1, seed=2, ago=timedelta(seconds=5))
        for browser in (full, masked):
            await browser.until(f'data-name="main/{call.id}"')
        number = dict(call.callbacks[0].parameters)["CallerIDNum"][-6:]
        plain = re.sub(r"[ ()-]", "", full.html)
        assert number in plain
        assert number not in re.sub(r"[ ()-]", "", masked.html)
        assert call.id not in other.html
        assert json.loads(full.got[2].data) == ["all"]  # what changed before is fetched
        assert any("calls" in each.data for each in full.got if each.event == "changed")


async def test_a_call_that_comes_while_the_board_is_read_is_pushed(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure()
    read = MissedCalls.load
    placed: list[ScriptedCall] = []

    async def slow(missed: MissedCalls) -> None:
        await read(missed)
        if not placed:
            placed.append(await place("answered", 1, seed=2, ago=timedelta(seconds=5)))

    monkeypatch.setattr(MissedCalls, "load", slow)
    async with running() as feed:
        browser = Browser(feed, ALL)
        await browser.until(f'data-name="main/{placed[0].id}"')
        assert sum(count for _, count in feed.board.per_minute(datetime.now(UTC))) == 1


async def test_an_event_that_cannot_be_read_stops_no_feed(
    configure: Configure, redis_url: str
) -> None:
    configure()
    with Redis.from_url(redis_url) as redis:
        redis.xadd(keys.inbox(0), {"e": b'{"v":2}', "n": 1})
        async with running() as feed:
            browser = Browser(feed, ALL)
            for partition in range(load_settings().partitions):
                redis.xadd(keys.inbox(partition), {"e": b"\xff", "n": 2})
            call = await place("answered", 1, seed=2, ago=timedelta(seconds=5))
            await browser.until(f'data-name="main/{call.id}"')


async def test_a_feed_is_down_while_the_inbox_is_that_of_a_later_version(
    configure: Configure, redis_url: str
) -> None:
    configure()
    with Redis.from_url(redis_url) as redis:
        async with running() as feed:
            browser = Browser(feed, ALL)
            for layout, said in ((LAYOUT + 1, "down"), (LAYOUT, "up")):
                redis.hset(keys.PARTITIONS, "layout", layout)
                async with asyncio.timeout(30):
                    while FeedMessage("feed", said) not in browser.got:
                        await asyncio.sleep(0.02)


async def test_a_tenants_call_is_pushed_to_its_people_alone(configure: Configure) -> None:
    configure(TENANT)
    async with running() as operators, running("acme") as its:
        ours, theirs = Browser(operators, ALL), Browser(its, ALL)
        await asyncio.sleep(0)
        call = await place("answered", 1, seed=2, tenant="acme", ago=timedelta(seconds=5))
        await theirs.until(f'data-name="main/{call.id}"')
        own = await place("answered", 1, seed=3, ago=timedelta(seconds=5))
        await ours.until(f'data-name="main/{own.id}"')
        assert call.id not in ours.html
        assert own.id not in theirs.html


async def test_a_browser_that_does_not_read_is_cut_off(configure: Configure) -> None:
    configure()
    async with running() as feed:
        with feed.listeners.listening(ALL) as listener:
            for _ in range(AHEAD + 1):
                feed.listeners.tell_pages(FeedMessage("changed", "[]"))
            assert listener not in feed.listeners.all
            assert await listener.batch() == []  # the end


async def test_what_waits_is_read_at_once_and_a_ping_tells_nothing() -> None:
    listeners, message = Listeners(), FeedMessage("changed", "[]", "1")
    with listeners.listening(ALL) as listener:
        listeners.tell_pages(message)
        await listeners.ping()
        assert await listener.batch() == [message, PING]
        assert PING.as_sse == b":\r\n\r\n"
        reading = asyncio.create_task(listener.batch())
        await asyncio.sleep(0)
        assert not reading.done()
        listeners.tell_pages(message)
        assert await reading == [message]
        listeners.tell_pages(message)
        listener.end(PING)
        listeners.tell_pages(message)
        assert [await listener.batch() for _ in range(2)] == [[PING], []]


async def test_closing_ends_all_streams(configure: Configure) -> None:
    configure()
    async with running() as feed:
        browser = Browser(feed, ALL)
        await asyncio.sleep(0)
        feed.listeners.close()
        async with asyncio.timeout(10):
            await browser.ended
        assert feed.listeners.all == set()
        async with asyncio.timeout(10):
            await Browser(feed, ALL).ended  # of a request that came before
        assert feed.listeners.all == set()
