"""`reconcile`: the hourly RQ job that compares the PBXs' call records with our calls."""

import asyncio
import logging
from datetime import UTC, datetime

from redis.exceptions import RedisError

from offhook.connection import opened
from offhook.errors import ConfigError, OffhookError
from offhook.provisioning.api import open_api, sentence
from offhook.settings import Settings
from unifiedapi.errors import UnifiedApiError
from workers import process, version
from workers.pbxs import for_each_pbx
from workers.reconcile.reconciliation import OVERLAP, Reconciled, Reconciliation

log = logging.getLogger("offhook.reconcile")


def reconcile() -> None:
    """The RQ job."""
    process.die_with_parent()
    asyncio.run(reconcile_all(version.settings()))


async def reconcile_all(settings: Settings) -> None:
    """Reconcile every PBX that has an API configured. A failed one is retried at the next run."""
    async with opened(settings) as (inbox, _):

        async def compare(tenant: str, pbx: str) -> None:
            try:
                async with open_api(settings.of(tenant), pbx) as api:
                    await _catch_up(Reconciliation(settings, pbx, api, inbox, access=tenant))
            except ConfigError as error:
                log.error("cannot compare the calls of %s: %s", pbx, error)
            except (UnifiedApiError, OffhookError, RedisError) as error:
                log.error("calls of %s not compared, will retry: %s", pbx, sentence(error))

        await for_each_pbx(settings, "reconcile", compare)


async def _catch_up(reconciliation: Reconciliation) -> None:
    """Compare step by step, so that the next run goes on if there is no time for all."""
    done: Reconciled | None = None
    while done is None or done.until < datetime.now(UTC) - OVERLAP:
        done = await reconciliation.next()
        if done is None:
            return
        if done.closed or done.recovered:
            log.warning(
                "%s: %s calls on the PBX, %s here; closed %s, recovered %s",
                done.pbx,
                done.records,
                done.here,
                len(done.closed),
                len(done.recovered),
            )
