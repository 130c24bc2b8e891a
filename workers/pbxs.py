"""`for_each_pbx()`: what a periodic job does with each PBX, so that none holds up the others.

One worker runs all periodic jobs, one after the other: a job that never ends would be the last.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from offhook.provisioning.api import with_api
from offhook.settings import Settings
from offhook.tasks import end

log = logging.getLogger("offhook.pbxs")

WITHIN = 300.0  # seconds for one PBX, however slowly it answers or however much it lists
_AT_ONCE = 8  # PBXs


async def for_each_pbx(
    settings: Settings, job: str, work: Callable[[str, str], Coroutine[Any, Any, None]]
) -> None:
    """Do the work for each access to a PBX's API, several at a time.

    An error, or a PBX that takes too long, does not stop the others.

    Args:
        job: its name, for the log.
        work: called with the tenant whose access it is (empty: the operator's), and the PBX. It
            may be cancelled; the next run then repeats it.
    """
    turns = asyncio.Semaphore(_AT_ONCE)

    async def in_turn(tenant: str, pbx: str) -> None:
        async with turns:
            task = asyncio.create_task(work(tenant, pbx))
            await asyncio.wait({task}, timeout=WITHIN)
            if task.done():
                task.result()
                return
            await end(task)
            log.error(
                "%s: PBX %s%s has taken more than %g s: left until the next run",
                job,
                pbx,
                f" of {tenant}" if tenant else "",
                WITHIN,
            )

    accesses = with_api(settings)
    results = await asyncio.gather(*(in_turn(*each) for each in accesses), return_exceptions=True)
    for error in filter(None, results):
        raise error
