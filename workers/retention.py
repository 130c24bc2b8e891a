"""The RQ job that deletes dead letters and refused callbacks that were kept for long enough."""

import asyncio
import logging
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from redis import Redis
from redis.exceptions import RedisError

from offhook.connection import opened
from offhook.inbox import quarantine
from offhook.operations import dead_letters
from offhook.operations.dead_letters import DeadLetter
from offhook.settings import Settings
from workers import process, version

log = logging.getLogger("offhook.retention")


def delete_expired() -> None:
    """The RQ job."""
    process.die_with_parent()
    asyncio.run(_delete_expired(version.settings()))


async def _delete_expired(settings: Settings) -> None:
    now = datetime.now(UTC)
    try:
        async with opened(settings) as (inbox, rq):
            before = now - timedelta(days=settings.quarantine_days)
            refused = 0
            for tenant in ("", *settings.tenants):
                refused += await quarantine.trim(inbox.redis, before, tenant)
            dead = await asyncio.to_thread(
                _discard, rq, now - timedelta(days=settings.dead_letter_days)
            )
    except RedisError as error:
        log.error("cannot delete what has expired, will retry: %s", error)
        return
    if refused:
        log.info(
            "deleted %s refused callbacks older than quarantine_days (%g)",
            refused,
            settings.quarantine_days,
        )
    for handler, count in dead.items():
        log.warning(
            "deleted %s dead letters of %s older than dead_letter_days (%g)",
            count,
            handler,
            settings.dead_letter_days,
        )


def _discard(rq: Redis, before: datetime) -> dict[str, int]:
    """Delete the dead letters that died before then. Returns how many of each handler."""
    expired: defaultdict[str, list[DeadLetter]] = defaultdict(list)
    for letter in dead_letters.find(rq):
        if letter.died < before:
            expired[letter.handler].append(letter)
    return {name: dead_letters.discard(rq, letters) for name, letters in expired.items()}
