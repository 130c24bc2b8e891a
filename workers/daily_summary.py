"""`daily_summary`: announces the calls of each day in one event."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from offhook.announcements import announce
from offhook.call import Call, Outcome
from offhook.calls import summarize
from offhook.connection import opened
from offhook.event import CallEvent, EventType, call_name
from offhook.inbox import Inbox, keys
from offhook.inbox.call_store import Calls
from offhook.settings import Settings
from workers import process, version
from workers.own_events import own_event, stable_id

MAX_LISTED = 10  # missed calls that the text lists


def daily_summary() -> None:
    """The RQ job."""
    process.die_with_parent()
    asyncio.run(_summarize(version.settings()))


async def _summarize(settings: Settings) -> None:
    async with opened(settings) as (inbox, _):
        for tenant in ("", *settings.tenants):
            if settings.of(tenant).daily_summary is not None:
                zone = settings.tenants[tenant].tzinfo if tenant else None
                await announce_day(settings, inbox, datetime.now(UTC).astimezone(zone), tenant)


async def announce_day(settings: Settings, inbox: Inbox, now: datetime, tenant: str = "") -> None:
    """Announce a tenant's day that has ended, unless it was announced before.

    Args:
        settings: the operator's.
        now: in the time zone of the days.
    """
    hour, minute = map(int, (settings.of(tenant).daily_summary or "00:00").split(":"))
    end = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if now < end:
        return
    last: Any = await inbox.redis.get(keys.daily_summary(tenant))
    day = end.date().isoformat()
    if last is not None and last.decode() >= day:
        return
    if last is not None:  # the first day may be incomplete
        events = [event async for event in _events(settings, inbox, end, tenant)]
        # A crash may repeat this; the ids are the same, so the inbox drops the repeats.
        await announce(settings, inbox, events, window=172_800)
    await inbox.redis.set(keys.daily_summary(tenant), day)


async def _events(
    settings: Settings, inbox: Inbox, end: datetime, tenant: str
) -> AsyncIterator[CallEvent]:
    begin = end - timedelta(days=1)
    calls: dict[str, list[Call]] = {}
    async for kept in Calls(inbox).since(begin, tenant):
        call = summarize(kept.state, settings.of(tenant).region)
        if call.started < end and call.outcome is not None:
            calls.setdefault(call.pbx, []).append(call)
    for pbx, theirs in calls.items():
        yield event_of(pbx, theirs, end, tenant)


def event_of(pbx: str, calls: Sequence[Call], end: datetime, tenant: str = "") -> CallEvent:
    """Return the event for a day: its numbers, and a text for people.

    Args:
        calls: the calls of the day, newest first.
        end: when the day ended.
    """
    outcomes = Counter(call.outcome for call in calls if call.outcome)
    numbers = {"calls": str(len(calls))} | {str(each): str(outcomes[each]) for each in Outcome}
    for direction in ("in", "out", "internal"):
        numbers[direction] = str(sum(call.direction == direction for call in calls))
    day = end.date().isoformat()
    return own_event(
        stable_id(int(end.timestamp() * 1000), call_name(pbx, day, tenant)),
        EventType.DAILY_SUMMARY,
        pbx,
        f"summary {day}",
        numbers | {"day": day, "text": _text(calls, outcomes, end.tzinfo if tenant else None)},
        received=end,
        tenant=tenant,
    )


def _text(calls: Sequence[Call], outcomes: Counter[Outcome], zone: tzinfo | None) -> str:
    numbers = ", ".join(f"{outcomes[each]} {each}" for each in Outcome if outcomes[each])
    lines = [f"{len(calls)} calls: {numbers}"]
    missed = [
        call for call in calls if call.direction == "in" and call.outcome is not Outcome.ANSWERED
    ]
    lines += [_line(call, zone) for call in missed[:MAX_LISTED]]
    if len(missed) > MAX_LISTED:
        lines.append(f"and {len(missed) - MAX_LISTED} more")
    return "\n".join(lines)


def _line(call: Call, zone: tzinfo | None) -> str:
    caller = call.caller
    number = caller.e164 or caller.number or "a withheld number"
    who = f"{caller.name} ({number})" if caller.name else number
    return f"{call.started.astimezone(zone):%H:%M} {who}: {call.outcome}"
