"""Missed calls as a list to work off, read from the calls that are kept."""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace
from redis.asyncio import Redis

from offhook.call import Call
from offhook.calls import CallFilter, MissedCaller, Worklist, is_missed, outside_number, summarize
from offhook.calls.worklist import MOST, UNANSWERED
from offhook.inbox import Inbox, keys
from offhook.inbox.call_search import search

KEPT = timedelta(days=7)  # how long a caller stays in the list
_AT_ONCE = 20  # searches
_PER_NUMBER = 200  # newest calls with one number
_COMPARED = 9  # final digits that all spellings of a number share
_CALLING = 45  # seconds; a phone that was asked to call rings for 25 s at most


class MissedCalls:
    """The missed callers of a tenant, kept up to date with `take`.

    Args:
        region: the country whose numbers are dialled without a country code.
    """

    def __init__(self, inbox: Inbox, region: str | None, tenant: str = "") -> None:
        self._inbox = inbox
        self._region = region
        self._tenant = tenant
        self._worklist = Worklist()
        self._taken: list[Call] | None = None  # while the calls are read
        self._loading = asyncio.Lock()  # the feed loads anew when Redis is back, and now and then

    async def load(self) -> None:
        """Read the missed calls of the last days, and what followed them.

        Again now and then, this forgets calls that were erased.
        """
        async with self._loading:
            self._taken = []
            worklist = await self._read()
            for call in self._taken:
                worklist.put(call)
            self._worklist, self._taken = worklist, None

    async def _read(self) -> Worklist:
        since = datetime.now(UTC) - KEPT
        missed: list[Call] = []
        for outcome in UNANSWERED:
            wanted = CallFilter(outcome=outcome, since=since)
            missed += [call for call in await self._found(wanted, MOST) if is_missed(call)]
        first: dict[str, Call] = {}
        for call in sorted(missed, key=lambda each: each.started, reverse=True):
            number = outside_number(call)
            if number is not None and (number in first or len(first) < MOST):
                first[number] = call
        worklist, found = Worklist(), list(first.values())
        for at in range(0, len(found), _AT_ONCE):
            following = (self._follow(worklist, call) for call in found[at : at + _AT_ONCE])
            await asyncio.gather(*following)
        return worklist

    async def take(self, call: Call) -> list[MissedCaller]:
        """Take in a call as it is known now. Return the missed callers that it affects."""
        if self._taken is not None:
            self._taken.append(call)
        if self._worklist.knows(call):
            changed = self._worklist.put(call)
        elif changed := is_missed(call) and call.started >= datetime.now(UTC) - KEPT:
            # Another call with this number may have been answered before this one counted as over.
            await self._follow(self._worklist, call)
        return self._worklist.callers_like(call) if changed else []

    def callers(self) -> list[MissedCaller]:
        """The missed callers of the last days, those first who have waited longest."""
        self._worklist.forget(datetime.now(UTC) - KEPT)
        return self._worklist.callers()

    def waiting(self, number: str) -> MissedCaller | None:
        """The caller with this number who has not been reached; None: no such caller waits."""
        return self._worklist.waiting(number)

    async def _follow(self, worklist: Worklist, missed: Call) -> None:
        """Read the calls with the number of a missed one, from that one on."""
        number = outside_number(missed)
        wanted = CallFilter(number=number, since=missed.started, region=self._region)
        if number is not None:
            # The missed ones first: the worklist keeps no other calls of a number it does not know.
            calls = await self._found(wanted, _PER_NUMBER)
            for call in sorted([missed, *calls], key=is_missed, reverse=True):
                worklist.put(call)

    async def _found(self, wanted: CallFilter, most: int) -> list[Call]:
        calls: list[Call] = []
        cursor: str | None = None
        while len(calls) < most:
            page = await search(self._inbox, wanted, most - len(calls), cursor, self._tenant)
            calls += [summarize(kept.state, self._region) for kept in page.calls]
            cursor = page.cursor
            if cursor is None:
                break
        return calls


async def claim(redis: Redis, number: str, by: str, tenant: str = "") -> str | None:
    """Note that a user calls a number, unless a colleague does. Return who does instead.

    Args:
        number: as `outside_number` has it.
    """
    key = _key(number, tenant)
    known: Any = await redis.set(key, by, ex=_CALLING, nx=True, get=True)
    return known.decode() if known is not None and known.decode() != by else None


async def release(redis: Redis, number: str, tenant: str = "") -> None:
    """Forget that a user calls a number: the PBX refused it."""
    await redis.delete(_key(number, tenant))


async def with_claims(
    redis: Redis, callers: Sequence[MissedCaller], tenant: str = ""
) -> list[MissedCaller]:
    """These callers, with the users who asked the PBX a moment ago to call them."""
    numbers = [outside_number(each.calls[-1]) or "" for each in callers]
    found: Any = await redis.mget([_key(each, tenant) for each in numbers]) if numbers else []
    return [
        replace(each, calling=by.decode()) if by and each.reached is None else each
        for each, by in zip(callers, found, strict=True)
    ]


def _key(number: str, tenant: str) -> str:
    return keys.calling(re.sub(r"\D", "", number)[-_COMPARED:], tenant)
