"""`summary`: once a day, how the calls went; for whoever wants one message instead of many."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

from redis import Redis

from offhook.announcements import announce
from offhook.call import Call, Outcome, Party
from offhook.calls import summarize
from offhook.connection import connect, connect_rq
from offhook.event import CallEvent, EventType
from offhook.inbox import Inbox, keys
from offhook.inbox.call_store import Calls
from offhook.settings import Settings, load_settings
from workers import process

MOST = 10  # missed calls that are named


def summary() -> None:
    """The RQ job."""
    process.die_with_parent()
    asyncio.run(_summarize(load_settings(), datetime.now().astimezone()))


async def _summarize(settings: Settings, now: datetime) -> None:
    if settings.daily_summary is None:
        return
    redis, rq = connect(settings.redis_url), connect_rq(settings.redis_url)
    try:
        inbox = Inbox(redis, settings.partitions, settings.durability)
        await tell_day(settings, inbox, rq, now)
    finally:
        await redis.aclose()
        rq.close()


async def tell_day(settings: Settings, inbox: Inbox, rq: Redis, now: datetime) -> None:
    """Announce the day that has ended, if one has and it was not told.

    Args:
        now: with the zone whose days they are.
    """
    hour, minute = map(int, (settings.daily_summary or "00:00").split(":"))
    end = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if now < end:
        return
    last: Any = await inbox.redis.get(keys.DAILY_SUMMARY)
    day = end.date().isoformat()
    if last is not None and last.decode() >= day:
        return
    if last is not None:  # the first one comes after a whole day
        events = [event async for event in _events(settings, inbox, end)]
        # Told again after a crash it has the same id, and is a repeat.
        await announce(settings, inbox, rq, events, window=172_800)
    await inbox.redis.set(keys.DAILY_SUMMARY, day)


async def _events(settings: Settings, inbox: Inbox, end: datetime) -> AsyncIterator[CallEvent]:
    begin = end - timedelta(days=1)
    calls: dict[str, list[Call]] = {}
    async for kept in Calls(inbox).since(begin):
        call = summarize(kept.state, settings.region)
        if call.started < end and call.outcome is not None:
            calls.setdefault(call.pbx, []).append(call)
    for pbx, theirs in calls.items():
        yield event_of(pbx, theirs, end)


def event_of(pbx: str, calls: Sequence[Call], end: datetime) -> CallEvent:
    """What is told of a day: its numbers, and a text for people.

    Args:
        calls: those of the day, the newest first.
        end: when the day ended.
    """
    outcomes = Counter(call.outcome for call in calls if call.outcome)
    told = {"calls": str(len(calls))} | {str(each): str(outcomes[each]) for each in Outcome}
    for direction in ("in", "out", "internal"):
        told[direction] = str(sum(call.direction == direction for call in calls))
    day = end.date().isoformat()
    name = blake2b(f"{pbx}/{day}".encode(), digest_size=10).hexdigest()
    return CallEvent(
        id=f"{int(end.timestamp() * 1000):012x}{name}",
        pbx=pbx,
        extension="",
        type=EventType.DAILY_SUMMARY,
        call_id=f"summary {day}",
        direction=None,
        caller=Party(),
        called=Party(),
        status=None,
        received=end,
        parameters=told | {"day": day, "text": _text(calls, outcomes)},
    )


def _text(calls: Sequence[Call], outcomes: Counter[Outcome]) -> str:
    said = ", ".join(f"{outcomes[each]} {each}" for each in Outcome if outcomes[each])
    lines = [f"{len(calls)} calls: {said}"]
    open_ = [
        call for call in calls if call.direction == "in" and call.outcome is not Outcome.ANSWERED
    ]
    lines += [_line(call) for call in open_[:MOST]]
    if len(open_) > MOST:
        lines.append(f"and {len(open_) - MOST} more")
    return "\n".join(lines)


def _line(call: Call) -> str:
    caller = call.caller
    number = caller.e164 or caller.number or "a withheld number"
    who = f"{caller.name} ({number})" if caller.name else number
    return f"{call.started.astimezone():%H:%M} {who}: {call.outcome}"
