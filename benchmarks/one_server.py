"""The server of the handlers alone, without RQ and its parent: `python -m benchmarks.one_server`.

Calls are folded with `fold` as the argument, as always in production.
"""

import asyncio
import signal
import sys
from collections.abc import Callable

import uvloop

from offhook.connection import connect, opened
from offhook.http import Http
from offhook.plugins import plug_handler
from offhook.settings import Settings, load_settings
from workers.delivery.steps import StepPage
from workers.serving.partition_server import Server


async def serve(
    settings: Settings, *, folds: bool, ended: Callable[[], bool] | None = None
) -> None:
    """Serve until SIGTERM, or until `ended`."""
    handlers = [plug_handler(name, policy) for name, policy in settings.handlers.items()]
    async with (
        opened(settings, tries=10) as (inbox, rq),
        connect(settings.redis_url, tries=0) as waiting,
        Http() as http,
    ):
        server = Server(
            settings, handlers, inbox, waiting, rq, http, lambda tenant: None, StepPage()
        )
        server.folds = folds
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
        running = asyncio.create_task(server.run())
        while ended is not None and not running.done():
            await asyncio.sleep(0.01)
            if ended():
                server.stop()
                break
        await running


if __name__ == "__main__":
    uvloop.run(serve(load_settings(), folds="fold" in sys.argv))
