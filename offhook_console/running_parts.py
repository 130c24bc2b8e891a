"""All parts of the console, with the tasks that keep them up to date; others after a reload."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from redis import Redis
from starlette.applications import Starlette

from offhook.inbox import Inbox
from offhook.operations.reload_following import SettingsPart, follow
from offhook.operations.running_files import CONSOLE, Loaded
from offhook.settings import Settings
from offhook.tasks import end
from offhook_console.agents_of_queues import AgentsOfQueues
from offhook_console.attention import Attention
from offhook_console.dialling import Dialling
from offhook_console.extension_setup import ExtensionSetup
from offhook_console.feeds import Feeds
from offhook_console.last_seen import LastSeen
from offhook_console.parts import ConsoleParts, Deliver
from offhook_console.passwords import PasswordCheck
from offhook_console.sessions import Sessions
from offhook_console.sign_in_limit import SignInLimit
from offhook_console.wall_watch import WallWatch

_LOAD_WITHIN = 10.0  # seconds until the calls of the day are read, when the parts are replaced


@asynccontextmanager
async def running_parts(
    settings: Settings,
    inbox: Inbox,
    rq: Redis,
    deliver: Deliver,
    setups: set[asyncio.Task[None]],
) -> AsyncIterator[ConsoleParts]:
    """The parts for these settings, while in this context.

    Args:
        setups: the comparisons and setups of extensions that run; they go on after a reload.
    """
    feeds = Feeds(settings, inbox, rq)
    seen = LastSeen(inbox.redis)
    walls = WallWatch(inbox.redis, seen)
    agents = AgentsOfQueues(settings, lambda tenant: feeds[tenant].tell_changed("agents"))
    parts = ConsoleParts(
        settings=settings,
        inbox=inbox,
        rq=rq,
        pages=feeds.pages,
        feeds=feeds,
        sessions=Sessions(settings),
        passwords=PasswordCheck(),
        limit=SignInLimit(inbox.redis, frozenset(settings.console.users)),
        deliver=deliver,
        attention=Attention(),
        dialling=Dialling(settings, inbox.redis),
        setup=ExtensionSetup(settings, inbox.redis, setups),
        seen=seen,
        walls=walls,
        agents=agents,
    )
    for tenant in {"", *(user.tenant for user in settings.console.users.values())}:
        feeds.begin(tenant)  # so that the first look does not find an empty board
    working = [asyncio.create_task(seen.run()), asyncio.create_task(walls.run())]
    try:
        yield parts
    finally:
        await end(*working)
        await agents.close()
        await feeds.close()


@asynccontextmanager
async def replaceable_parts(
    app: Starlette,
    settings: Settings,
    inbox: Inbox,
    rq: Redis,
    deliver: Deliver,
    loaded: Loaded | None,
) -> AsyncIterator[None]:
    """Run the parts as `app.state.parts` while in this context.

    Args:
        loaded: the version of the settings, to take part in reloads; None: take no part.
    """
    loop = asyncio.get_running_loop()
    setups: set[asyncio.Task[None]] = set()

    def made(fresh: Settings) -> AbstractAsyncContextManager[ConsoleParts]:
        return running_parts(fresh, inbox, rq, deliver, setups)

    running = AsyncExitStack()
    app.state.parts = await running.enter_async_context(made(settings))

    async def replace(fresh: Settings) -> None:
        nonlocal running
        following = AsyncExitStack()
        parts = await following.enter_async_context(made(fresh))
        await parts.feeds.loaded(_LOAD_WITHIN)
        app.state.parts = parts
        # Ends the streams: the browsers come back, with the rights that they have now.
        old, running = running, following
        await old.aclose()

    def take(fresh: Settings, loaded: Loaded) -> None:
        asyncio.run_coroutine_threadsafe(replace(fresh), loop).result()

    leave = None
    if loaded is not None:
        leave = follow(loaded, SettingsPart(settings, CONSOLE, take), settings.redis_url)
    try:
        yield
    finally:
        if leave is not None:
            await asyncio.to_thread(leave)
        await end(*setups)  # each can be begun again
        await running.aclose()
