"""`reconcile`: the hourly RQ job that compares the PBXs' call records with our calls."""

import asyncio
import logging

from redis.exceptions import RedisError

from offhook.connection import opened
from offhook.errors import ConfigError, OffhookError
from offhook.provisioning.api import open_api, sentence, with_api
from offhook.settings import Settings
from unifiedapi.errors import UnifiedApiError
from workers import process, version
from workers.reconcile.reconciliation import Reconciliation

log = logging.getLogger("offhook.reconcile")


def reconcile() -> None:
    """The RQ job."""
    process.die_with_parent()
    asyncio.run(reconcile_all(version.settings()))


async def reconcile_all(settings: Settings) -> None:
    """Reconcile every PBX that has an API configured. A failed one is retried at the next run."""
    async with opened(settings) as (inbox, _):
        for tenant, pbx in with_api(settings):
            try:
                async with open_api(settings.of(tenant), pbx) as api:
                    done = await Reconciliation(settings, pbx, api, inbox, access=tenant).next()
            except ConfigError as error:
                log.error("cannot compare the calls of %s: %s", pbx, error)
                continue
            except (UnifiedApiError, OffhookError, RedisError) as error:
                log.error("calls of %s not compared, will retry: %s", pbx, sentence(error))
                continue
            if done is not None and (done.closed or done.recovered):
                log.warning(
                    "%s: %s calls on the PBX, %s here; closed %s, recovered %s",
                    pbx,
                    done.records,
                    done.here,
                    len(done.closed),
                    len(done.recovered),
                )
