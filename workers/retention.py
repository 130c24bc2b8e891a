"""The RQ job that deletes dead letters and refused callbacks that were kept for long enough."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from redis import Redis
from redis.exceptions import RedisError

from offhook import queues
from offhook.connection import opened
from offhook.inbox import quarantine
from offhook.operations import dead_letters
from offhook.operations.dead_letters import Filter
from offhook.settings import Settings, tenant_of_plugin
from workers import process, version

log = logging.getLogger("offhook.retention")


def delete_expired() -> None:
    """The RQ job."""
    process.die_with_parent()
    asyncio.run(_delete_expired(version.settings()))


async def _delete_expired(settings: Settings) -> None:
    try:
        async with opened(settings) as (inbox, rq):
            for tenant in ("", *settings.tenants):
                its = settings.of(tenant)
                refused = await quarantine.trim(inbox.redis, _days_ago(its.quarantine_days), tenant)
                if refused:
                    log.info(
                        "deleted %s refused callbacks%s older than quarantine_days (%g)",
                        refused,
                        f" of {tenant}" if tenant else "",
                        its.quarantine_days,
                    )
            dead = await asyncio.to_thread(_discard, rq, settings)
    except RedisError as error:
        log.error("cannot delete what has expired, will retry: %s", error)
        return
    for handler, count in dead.items():
        log.warning(
            "deleted %s dead letters of %s older than dead_letter_days (%g)",
            count,
            handler,
            settings.of(tenant_of_plugin(handler)).dead_letter_days,
        )


def _discard(rq: Redis, settings: Settings) -> dict[str, int]:
    """Delete the dead letters that have expired. Returns how many of each handler."""
    deleted: dict[str, int] = {}
    for name in queues.with_dead_letters(rq):
        until = _days_ago(settings.of(tenant_of_plugin(name)).dead_letter_days)
        expired = dead_letters.heads(rq, Filter(handler=name, until=until))
        if count := dead_letters.discard(rq, expired):
            deleted[name] = count
    return deleted


def _days_ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)
