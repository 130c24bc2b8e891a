"""Reconciliation: the PBX's call records against the calls kept here.

PBX's records → **reconcile** (match, close, recover) → inbox

Nothing of it needs to be undone when it is killed: a record has the same events always, the inbox
takes each of them once, and folded twice they change nothing.

    offhook:reconciled:PBX   hash: `until` -> up to when the PBX's records were compared;
                             EXTENSION -> from when on those of an extension count
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

from redis import Redis

from offhook.announcements import announce
from offhook.call import Call
from offhook.calls import summarize
from offhook.errors import ConfigError, NotYet
from offhook.extensions import Extensions
from offhook.inbox import Inbox, keys
from offhook.inbox.call_store import Calls, Kept
from offhook.settings import Settings
from unifiedapi.callback import known_parameters
from unifiedapi.client import UnifiedApi
from unifiedapi.resources import CallRecord
from workers.reconcile.matching import SLACK, Matches, Recorded, events, match, read

YOUNG = timedelta(minutes=10)  # a record's callbacks may be on their way, or in a journal
AGAIN = timedelta(hours=1)  # records are compared once more, for the sake of their neighbours
LONGEST = timedelta(days=1)  # a call; its record is dated by when it began
SLICE = timedelta(hours=1)  # records are asked for in slices of so much time
REACHABLE = 9998  # records in an answer, beyond which the API does not reach
_LOOKS = 30  # a second apart, whether all calls are put together
_UNTIL = "until"


@dataclass(frozen=True)
class Reconciled:
    """What came of it.

    Attributes:
        since, until: which records were compared, by when they were made.
        records: how many of these are of extensions that are set up here.
        here: of how many of these there is a call here.
        closed: the calls whose end a record told.
        recovered: the calls of which only a record told, as it did.
    """

    pbx: str
    since: datetime
    until: datetime
    records: int
    here: int
    closed: tuple[Call, ...]
    recovered: tuple[Recorded, ...]


class Reconciliation:
    """The reconciliation of one PBX.

    Args:
        pbx: its name in the configuration.
        rq: a blocking client, to call workers with.
        young: how old a record must be.
    """

    def __init__(
        self,
        settings: Settings,
        pbx: str,
        api: UnifiedApi,
        inbox: Inbox,
        rq: Redis,
        young: timedelta = YOUNG,
    ) -> None:
        self.pbx = pbx
        self._settings = settings
        self._api = api
        self._inbox = inbox
        self._rq = rq
        self._young = young
        self._calls = Calls(inbox)
        self._key = keys.reconciled(pbx)

    async def next(self) -> Reconciled | None:
        """Compare the records made since the last time; None the first time, which only begins.

        An extension's calls count from the first time on that it was found to be set up.

        Raises:
            UnifiedApiError: the PBX does not tell; the next time it will be asked for all of it.
            NotYet: not everything that was told is in its call yet.
            ConfigError: the time zone of the PBX cannot be right.
            InboxUnavailable: not everything is in the inbox.
        """
        now = datetime.now(UTC)
        stored: Any = await self._inbox.redis.hgetall(self._key)
        marks = {name.decode(): datetime.fromisoformat(at.decode()) for name, at in stored.items()}
        known = set(await self._extensions())
        extensions = {name: marks.get(name, now) for name in known}
        last = marks.get(_UNTIL)
        done = None
        if last is not None:
            done = await self._compare(last - AGAIN, now - self._young, extensions)
        seen = {_UNTIL: now - self._young} | extensions
        async with self._inbox.redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(self._key)
            pipeline.hset(self._key, mapping={n: at.isoformat() for n, at in seen.items()})
            await pipeline.execute()
        return done

    async def since(
        self,
        since: datetime,
        *,
        dry_run: bool = False,
        advance: Callable[[float], None] = lambda part: None,
    ) -> Reconciled:
        """Compare the records made since then.

        Args:
            dry_run: tell nobody.
            advance: told how much of the records is there, from 0 to 1.

        Raises: as `next` does.
        """
        extensions = dict.fromkeys(await self._extensions(), since)
        until = datetime.now(UTC) - self._young
        return await self._compare(since, until, extensions, dry_run=dry_run, advance=advance)

    async def _extensions(self) -> list[str]:
        found = await Extensions(self._inbox.redis).all()
        return [number for pbx, number in found if pbx == self.pbx]

    async def _compare(
        self,
        since: datetime,
        until: datetime,
        extensions: Mapping[str, datetime],
        *,
        dry_run: bool = False,
        advance: Callable[[float], None] = lambda part: None,
    ) -> Reconciled:
        if self._settings.pbx[self.pbx].zone is None:
            raise ConfigError(
                f"pbx.{self.pbx}.zone: is not set, and the PBX dates its call records in its local "
                'time; set it, such as zone = "Europe/Berlin"'
            )
        # Of a call that is kept no more one could not tell that it was known.
        kept_since = datetime.now(UTC) - timedelta(days=self._settings.keep_days) + SLACK
        since = max(since, kept_since)
        counting = {name: max(at, kept_since) for name, at in extensions.items()}
        records: dict[str, Recorded] = {}
        at = since
        while at < until:
            end = min(at + SLICE, until)
            async for record in self._listed(at, end):
                about = read(record, counting)
                if about is not None:
                    records[about.id] = about
            at = end
            advance((at - since) / (until - since))
        told = sorted(records.values(), key=lambda record: (record.began, record.id))
        matches, open_ = await self._match(told, counting, since, until)
        closing = [
            (record, call)
            for record in told
            for call in matches.calls.get(record.id, ())
            if call.id in open_ and len(matches.calls[record.id]) == 1
        ]
        if matches.doubt is not None and (closing or matches.missing or not told):
            raise ConfigError(f"pbx.{self.pbx}: {matches.doubt}")
        if not dry_run:
            now, window = datetime.now(UTC), self._settings.keep_days * 86_400
            telling = [(record, call.id) for record, call in closing]
            telling += [(record, record.call_id) for record in matches.missing]
            told_of = [events(each, self.pbx, call_id, now) for each, call_id in telling]
            await announce(
                self._settings, self._inbox, self._rq, chain.from_iterable(told_of), window=window
            )
        return Reconciled(
            pbx=self.pbx,
            since=since,
            until=until,
            records=len(told),
            here=len(matches.calls),
            closed=tuple(call for _, call in closing),
            recovered=matches.missing,
        )

    async def _listed(self, since: datetime, until: datetime) -> AsyncIterator[CallRecord]:
        """The records made in that time."""
        listing = self._api.call_records.list(
            # Without a start date the PBX begins with the month.
            start_date=since - LONGEST,
            save_start_date=since,
            save_end_date=until,
            sort_order="ascending",
        )
        async for page in listing.pages():
            if (page.total_results or 0) > REACHABLE and until - since > timedelta(seconds=2):
                middle = since + (until - since) / 2
                for half in ((since, middle), (middle, until)):
                    async for record in self._listed(*half):
                        yield record
                return
            for entry in page.entry:
                yield CallRecord.read(entry, self._api.zone)

    async def _match(
        self,
        records: Sequence[Recorded],
        extensions: Container[str],
        since: datetime,
        until: datetime,
    ) -> tuple[Matches, set[str]]:
        """Which call each record is about, and the ids of the calls whose end is not known."""
        await self._wait_for_calls(until)
        first = min((record.began for record in records), default=since)
        kept = [
            each
            async for each in self._calls.since(first - SLACK)
            if each.state.pbx == self.pbx
            and any(part.extension in extensions for part in each.state.parts)
        ]
        told = await self._calls.first_events(kept)
        api_ids = {
            each.state.id: known_parameters(told[each.name].parameters).get("CallAPIID", "")
            for each in kept
            if each.name in told
        }
        calls = [summarize(each.state, self._settings.region) for each in kept]
        if not records:  # then there should be no call that is over
            calls = [call for call in calls if call.ended and since <= call.ended <= until]
        matches = match(records, calls, {call: id_ for call, id_ in api_ids.items() if id_})
        return matches, {each.state.id for each in kept if _is_open(each)}

    async def _wait_for_calls(self, until: datetime) -> None:
        """Return when all that came in before then is in its call: what is not, is not missing."""
        server: Any = await self._inbox.redis.info("server")
        if server["uptime_in_seconds"] < self._young.total_seconds():
            raise NotYet(
                "the Redis server has just been started: receivers may still have callbacks in "
                f"their journals. Try again in {self._young.total_seconds() / 60:.0f} minutes"
            )
        for _ in range(_LOOKS):
            if await self._calls.caught_up(until):
                return
            await asyncio.sleep(1)
        raise NotYet(
            "not every event is in its call yet: are the workers running (`offhook work`)? "
            "If they are, try again when they have caught up"
        )


def _is_open(kept: Kept) -> bool:
    """Has nobody told how the call ended?"""
    state = kept.state
    return state.closed in (None, "silence") and not any(part.records for part in state.parts)
