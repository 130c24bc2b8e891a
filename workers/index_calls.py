"""The RQ job that puts calls into the index that an earlier version has kept."""

import asyncio
import logging

from redis.exceptions import RedisError

from offhook.connection import opened
from offhook.inbox.call_index import index_kept
from offhook.settings import Settings
from workers import process, version

log = logging.getLogger("offhook.calls")


def index_calls() -> None:
    """The RQ job."""
    process.die_with_parent()
    asyncio.run(_index_calls(version.settings()))


async def _index_calls(settings: Settings) -> None:
    try:
        async with opened(settings) as (inbox, _):
            count = await index_kept(inbox, lambda tenant: settings.of(tenant).keep_days)
    except RedisError as error:
        log.error("cannot put calls into the index, will retry: %s", error)
        return
    if count:
        log.info("put %s kept calls into the index", count)
