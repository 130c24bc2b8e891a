"""What is needed before the first call shows: the steps, and which of them are done."""

import asyncio
from dataclasses import dataclass

from offhook.connection import connect_rq
from offhook.extensions import Extensions
from offhook.inbox import Inbox, keys
from offhook.operations.processes import running
from offhook.operations.running_files import SERVE, WORK
from offhook_console.languages import gettext, ngettext
from offhook_console.parts import ConsoleParts


@dataclass(frozen=True)
class Step:
    """A step.

    Attributes:
        done: whether nothing is left to do.
        command: what does it; empty: nothing to run.
    """

    title: str
    says: str
    done: bool
    command: str = ""


async def has_begun(inbox: Inbox, tenant: str) -> bool:
    """Return whether a tenant has ever had an event."""
    numbers = await inbox.redis.exists(
        *(keys.last(partition, tenant) for partition in range(inbox.partitions))
    )
    return bool(numbers)


async def first_steps(parts: ConsoleParts) -> list[Step]:
    """The steps of the operator, in order."""
    redis = parts.inbox.redis
    async with redis.pipeline(transaction=False) as pipeline:
        for pbx in parts.settings.pbx:
            pipeline.scard(keys.listed_phones(pbx))
        phones = dict(zip(parts.settings.pbx, await pipeline.execute(), strict=True))
    found = await asyncio.to_thread(_programs, parts.settings.redis_url)
    receivers, workers = found.count(SERVE), found.count(WORK)
    ready = sum(1 for _, settings in await Extensions(redis).each() if settings.events)
    return [
        Step(
            gettext("Run a receiver and workers"),
            gettext(
                "{receivers} and {workers} run.",
                receivers=ngettext("{number} receiver", "{number} receivers", receivers),
                workers=ngettext("{number} worker", "{number} workers", workers),
            ),
            bool(receivers and workers),
            "offhook serve & offhook work",
        ),
        Step(
            gettext("Give Offhook access to the PBX"),
            ". ".join(f"{name}: {_listed(number)}" for name, number in phones.items())
            or gettext("No PBX is configured: a table [pbx.NAME] in offhook.toml."),
            any(phones.values()),
            "offhook doctor",
        ),
        Step(
            gettext("Set up extensions"),
            ngettext("{number} extension set up.", "{number} extensions set up.", ready)
            + " "
            + gettext(
                "The PBX must call Offhook for each extension. The command shows the changes, and "
                "asks before it makes them."
            ),
            ready > 0,
            "offhook setup --all",
        ),
        Step(
            gettext("Make a call"),
            gettext(
                "Call one of these extensions. Or try it without a phone: simulated calls also go "
                "to your handlers."
            ),
            False,
            "offhook simulate",
        ),
    ]


def _listed(phones: int) -> str:
    if not phones:
        return gettext("not asked yet")
    return ngettext("{number} phone listed", "{number} phones listed", phones)


def _programs(url: str) -> list[str]:
    with connect_rq(url, tries=0) as redis:
        return [each.loaded.program for each in running(redis)]
