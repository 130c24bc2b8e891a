"""`serve`: the RQ job that delivers events: one loop for many partitions and handlers.

inbox → **serve** (a lease per partition, each call in order) → handlers
"""

import asyncio
import faulthandler
import logging
import os
import signal
from functools import partial

import uvloop
from setproctitle import getproctitle, setproctitle

from offhook.connection import connect, opened
from offhook.errors import ConfigError
from offhook.http import Http
from offhook.inbox import keys
from offhook.operations.traces import open_traces
from offhook.plugins import PluggedHandler, plug_all
from offhook.settings import Settings
from workers import process, version
from workers.delivery.caller_names import naming
from workers.delivery.steps import StepPage
from workers.serving.partition_server import Server

log = logging.getLogger("offhook.serve")

PAGE = StepPage()  # the worker puts its own here before it forks, and reads what the job writes


def serve(pool: str, servers: int) -> None:
    """The RQ job. It runs until SIGTERM.

    Args:
        pool: the pool of handlers to serve; empty for the shared one.
        servers: number of processes that serve it on this machine.

    Raises:
        ConfigError: the configuration has become wrong.
    """
    setproctitle(f"{getproctitle()}: deliveries")
    process.die_with_parent()
    process.end_if_orphaned(PAGE)
    if PAGE.stacks is not None:
        faulthandler.register(signal.SIGUSR1, PAGE.stacks, all_threads=True)
    settings = version.settings()
    # A pool of its handler's name may serve one that was moved out of the shared processes.
    chosen = {
        name: policy
        for name, policy in settings.all_handlers.items()
        if (policy.pool_of(name) == pool or name == pool)
        and not version.is_broken(f"handlers.{name}")
    }
    plugins = plug_all(chosen, {})  # the supervisor names those that are broken
    if plugins.problems:
        raise ConfigError(plugins.problems)
    uvloop.run(run(settings, list(plugins.handlers.values()), pool, servers))


async def run(
    settings: Settings, handlers: list[PluggedHandler], pool: str = "", servers: int = 1
) -> None:
    """Serve until SIGTERM."""
    async with (
        opened(settings, tries=10) as (inbox, rq),
        connect(settings.redis_url, tries=0) as waiting,
        Http() as http,
        naming(settings, inbox.redis, pool) as names,
    ):
        traces = open_traces(settings, "offhook-worker")
        server = Server(settings, handlers, inbox, waiting, rq, http, names, PAGE, pool, servers)
        parent, loop = os.getppid(), asyncio.get_running_loop()

        def stop() -> None:
            # Without its worker it would hold the leases until all its deliveries are finished.
            # A worker with threads dies in steps: the signal comes again after the last of them.
            server.stop(at_once=os.getppid() != parent)
            # To finish them it needs Redis, and a dead supervisor kills neither it nor its worker.
            loop.call_later(process.grace(settings), partial(server.stop, at_once=True))

        loop.add_signal_handler(signal.SIGTERM, stop)
        server.traces = traces
        try:
            await server.run()
        finally:
            if traces is not None:
                await asyncio.to_thread(traces.close)
        if server.guard.returns:
            await inbox.redis.hdel(keys.APART, pool)
