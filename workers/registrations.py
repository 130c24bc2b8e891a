"""`check_registrations`: announces callbacks that the PBX has no more, such as after its restore.

Each extension costs the PBX a request, so each run looks at some. What is missing counts when two
runs in a row see it: `offhook setup` may be at work in between.
"""

import asyncio
import logging
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence

import msgspec
from redis.exceptions import RedisError

from offhook.connection import opened
from offhook.errors import OffhookError
from offhook.event import CallEvent
from offhook.extensions import Extensions
from offhook.inbox import Inbox, keys
from offhook.provisioning.api import sentence
from offhook.provisioning.plan import Action
from offhook.provisioning.registrar import Survey, Target, registrar
from offhook.settings import Settings
from unifiedapi.errors import UnifiedApiError
from workers import process, trouble_events, version
from workers.pbxs import for_each_pbx
from workers.trouble_watch import note, tell

log = logging.getLogger("offhook.registrations")

_SLICE = 250  # extensions of each run, and as many again of which something was missing
_AT_ONCE = 2  # requests
_MISSING = {Action.CREATE, Action.UPDATE, Action.ENABLE}


class Registrations(msgspec.Struct, omit_defaults=True):
    """What is kept of the extensions of one access to a PBX.

    Attributes:
        after: the last one that was looked at in turn.
        suspects: others of which something was missing once.
        lost: those that were announced.
    """

    after: str = ""
    suspects: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def check_registrations() -> None:
    """The RQ job."""
    process.die_with_parent()
    asyncio.run(check_all(version.settings()))


async def check_all(settings: Settings) -> None:
    """Look at some extensions of every PBX that has an API configured."""
    async with opened(settings) as (inbox, _):

        async def look(tenant: str, pbx: str) -> None:
            try:
                await check(settings, pbx, inbox, tenant)
            except (UnifiedApiError, OffhookError, RedisError) as error:
                log.error("cannot check the callbacks of %s: %s", pbx, sentence(error))

        await for_each_pbx(settings, "check_registrations", look)


async def check(settings: Settings, pbx: str, inbox: Inbox, access: str = "") -> None:
    """Look at some extensions of one PBX.

    Args:
        settings: the operator's.
        access: the tenant whose API this is.

    Raises:
        RedisError, OffhookError, UnifiedApiError: the next run goes on.
    """
    extensions = Extensions(inbox.redis)
    mine = sorted(
        number
        for name, number in await extensions.names()
        if name == pbx and settings.access_of(pbx, number) == access
    )
    field = f"registrations {pbx}/{access}"
    stored = await inbox.redis.hget(keys.TROUBLE, field)
    before = msgspec.json.decode(stored or b"{}", type=Registrations)
    begin = bisect_right(mine, before.after)
    some = mine[begin : begin + _SLICE]
    chosen = sorted({*some, *before.suspects[:_SLICE]} & {*mine})
    if not chosen:
        return
    missing, found = await _survey(settings.of(access), pbx, extensions, chosen)
    lost, suspects = {*before.lost}, {*before.suspects}
    new = sorted(missing & suspects)
    lost = (lost - (found - missing) | {*new}) & {*mine}
    suspects = ((suspects - found) | missing) & {*mine} - lost
    after = Registrations(
        some[-1] if begin + _SLICE < len(mine) else "",
        tuple(sorted(suspects)),
        tuple(sorted(lost)),
    )
    by_tenant: defaultdict[str, list[str]] = defaultdict(list)
    for number in new:
        by_tenant[settings.tenant_of(pbx, number)].append(number)
    events: list[CallEvent] = []
    for tenant, numbers in by_tenant.items():
        events += trouble_events.registration_lost(pbx, numbers, tenant)
    await note(inbox.redis, {field: msgspec.json.encode(after)}, events)
    await tell(settings, inbox)


async def _survey(
    settings: Settings, pbx: str, extensions: Extensions, numbers: Sequence[str]
) -> tuple[set[str], set[str]]:
    """The extensions that miss a callback, and all those that the PBX answered about."""
    wanted = await extensions.read([(pbx, number) for number in numbers])
    targets = [Target.of(settings, name, its) for name, its in wanted.items()]
    async with registrar(settings, pbx, at_once=_AT_ONCE) as its_registrar:
        surveys = [each for each in await its_registrar.survey(targets) if isinstance(each, Survey)]
    missing = {
        each.target.extension
        for each in surveys
        if any(change.action in _MISSING for change in each.changes)
    }
    return missing, {each.target.extension for each in surveys}
