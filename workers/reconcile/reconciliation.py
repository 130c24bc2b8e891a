"""Reconciliation: compares the PBX's call records with our calls.

PBX's records → **reconcile** (match, close, recover) → inbox

It is idempotent, so it may be killed at any time: a record always has the same events, the inbox
accepts each of them once, and folding them twice changes nothing.

    offhook:reconciled:PBX   hash: `until` -> up to when the PBX's records are compared;
                             EXTENSION -> from when its records count
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

from offhook.announcements import announce
from offhook.call import Call
from offhook.calls import summarize
from offhook.errors import ConfigError, NotYet
from offhook.event import call_name
from offhook.extensions import Extensions
from offhook.inbox import Inbox, keys
from offhook.inbox.call_store import Calls, Kept, caught_up
from offhook.operations import proof
from offhook.operations.proof import DayProof
from offhook.redis_servers import infos
from offhook.settings import Settings
from unifiedapi.callback import known_parameters
from unifiedapi.client import UnifiedApi
from unifiedapi.resources import CallRecord
from workers.reconcile.matching import SLACK, Matches, RecordedCall, events, match, read

YOUNG = timedelta(minutes=10)  # minimum age of a record: its callbacks may be in a journal
OVERLAP = timedelta(hours=1)  # compared again each time, so that matching sees the neighbours
MAX_CALL = timedelta(days=1)  # a record is dated by the start of its call
STEP = timedelta(days=1)  # at most, of the records that are new to a run
SLICE = timedelta(hours=1)  # time span of one request for records
REACHABLE = 9998  # the API returns no records beyond this number
CHECKS = 30
_UNTIL = "until"


@dataclass(frozen=True)
class Reconciled:
    """The result of a reconciliation.

    Attributes:
        since, until: the time span of the compared records, by when they were made.
        records: number of records of our extensions.
        here: number of these that belong to one of our calls.
        closed: the calls whose end only a record told.
        recovered: the records of calls without any callback.
        days: by tenant, the records that no earlier run has compared.
    """

    pbx: str
    since: datetime
    until: datetime
    records: int = 0
    here: int = 0
    closed: tuple[Call, ...] = ()
    recovered: tuple[RecordedCall, ...] = ()
    days: Mapping[str, Sequence[DayProof]] = field(default_factory=dict)

    def __add__(self, other: "Reconciled") -> "Reconciled":
        """Both results of the same PBX and time span."""
        return replace(
            self,
            records=self.records + other.records,
            here=self.here + other.here,
            closed=self.closed + other.closed,
            recovered=self.recovered + other.recovered,
            days={**self.days, **other.days},
        )


class Reconciliation:
    """The reconciliation of one PBX.

    Args:
        pbx: its name in the configuration.
        young: minimum age of a record.
        checks: how often to check, once a second, whether all events are folded into calls.
        access: the tenant whose access to the API this is: it lists that tenant's calls alone.
        only: the only tenant whose calls to compare; None: all that the access lists.
    """

    def __init__(
        self,
        settings: Settings,
        pbx: str,
        api: UnifiedApi,
        inbox: Inbox,
        young: timedelta = YOUNG,
        checks: int = CHECKS,
        *,
        access: str = "",
        only: str | None = None,
    ) -> None:
        self.pbx = pbx
        self._access = access
        self._only = only
        self._settings = settings
        self._api = api
        self._inbox = inbox
        self._young = young
        self._checks = checks
        self._calls = Calls(inbox)
        self._key = keys.reconciled(pbx, access)

    async def next(self) -> Reconciled | None:
        """Compare records made since the last run. The first run compares none, returns None.

        After a long break it does not compare all: the next run goes on from `until`.

        An extension's calls count from the first run at which it is set up.

        Raises:
            UnifiedApiError: a request to the PBX failed; the next run repeats all of them.
            NotYet: not all events are folded into calls yet.
            ConfigError: the time zone of the PBX is wrong.
            InboxUnavailable: not all events are in the inbox.
        """
        now = datetime.now(UTC)
        stored: Any = await self._inbox.redis.hgetall(self._key)
        marks = {name.decode(): datetime.fromisoformat(at.decode()) for name, at in stored.items()}
        known = set(await self._extensions())
        extensions = {name: marks.get(name, now) for name in known}
        last, until = marks.get(_UNTIL), now - self._young
        done = None
        if last is not None:
            until = min(until, max(last, self._kept_since()) + STEP)
            done = await self._compare(last - OVERLAP, until, extensions, fresh_from=last)
        seen = {_UNTIL: until} | extensions
        redis, days = self._inbox.redis, done.days if done else {}
        proven = {
            tenant: await proof.added(redis, self.pbx, tenant, its) for tenant, its in days.items()
        }
        async with redis.pipeline(transaction=True) as pipeline:
            for tenant, (changed, old) in proven.items():
                if changed:
                    mapping: dict[Any, Any] = dict(changed)
                    pipeline.hset(keys.proof(self.pbx, tenant), mapping=mapping)
                if old:
                    pipeline.hdel(keys.proof(self.pbx, tenant), *old)
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
        """Compare the records made since a time.

        Args:
            dry_run: add no events.
            advance: called with the progress, from 0 to 1.

        Raises: as `next` does.
        """
        extensions = dict.fromkeys(await self._extensions(), since)
        until = datetime.now(UTC) - self._young
        return await self._compare(since, until, extensions, dry_run=dry_run, advance=advance)

    def _kept_since(self) -> datetime:
        """Older calls are deleted, so their records would look like missing calls."""
        return datetime.now(UTC) - timedelta(days=self._settings.keep_days) + SLACK

    async def _extensions(self) -> list[str]:
        found = await Extensions(self._inbox.redis).names()
        return sorted(
            number
            for pbx, number in found
            if pbx == self.pbx
            and self._settings.access_of(pbx, number) == self._access
            and self._only in (None, self._settings.tenant_of(pbx, number))
        )

    async def _compare(
        self,
        since: datetime,
        until: datetime,
        extensions: Mapping[str, datetime],
        *,
        dry_run: bool = False,
        fresh_from: datetime | None = None,
        advance: Callable[[float], None] = lambda part: None,
    ) -> Reconciled:
        if self._settings.of(self._access).pbx[self.pbx].zone is None:
            raise ConfigError(
                f"pbx.{self.pbx}.zone: is not set, and the PBX dates its call records in its local "
                'time; set it, such as zone = "Europe/Berlin"'
            )
        kept_since = self._kept_since()
        since = max(since, kept_since)
        counting = {name: max(at, kept_since) for name, at in extensions.items()}
        by_tenant: dict[str, dict[str, datetime]] = {} if counting else {self._access: {}}
        for name, at in counting.items():
            by_tenant.setdefault(self._settings.tenant_of(self.pbx, name), {})[name] = at
        records: dict[str, dict[str, RecordedCall]] = {tenant: {} for tenant in by_tenant}
        at, fresh = since, set[str]()  # ids of records that no earlier run has listed
        while at < until:
            end = min(at + SLICE, until)
            if fresh_from is not None and at < fresh_from < end:
                end = fresh_from
            async for record in self._listed(at, end):
                for tenant, its in by_tenant.items():
                    recorded = read(record, its)
                    if recorded is not None:
                        records[tenant][recorded.id] = recorded
                        if fresh_from is not None and at >= fresh_from:
                            fresh.add(recorded.id)
            at = end
            advance((at - since) / (until - since))
        done = Reconciled(self.pbx, since, until)
        for tenant, its in by_tenant.items():
            in_order = sorted(records[tenant].values(), key=lambda each: (each.began, each.id))
            done += await self._settle(tenant, in_order, its, since, until, fresh, dry_run=dry_run)
        return done

    async def _settle(
        self,
        tenant: str,
        records: Sequence[RecordedCall],
        extensions: Container[str],
        since: datetime,
        until: datetime,
        fresh: Container[str],
        *,
        dry_run: bool,
    ) -> Reconciled:
        """Close and recover the calls of one tenant."""
        matches, open_ = await self._match(tenant, records, extensions, since, until)
        closing = [
            (record, call)
            for record in records
            for call in matches.calls.get(record.id, ())
            if call.id in open_ and len(matches.calls[record.id]) == 1
        ]
        if matches.doubt is not None and (closing or matches.missing or not records):
            raise ConfigError(f"pbx.{self.pbx}: {matches.doubt}")
        if not dry_run:
            now, window = datetime.now(UTC), self._settings.of(tenant).keep_days * 86_400
            found = [(record, call.id) for record, call in closing]
            found += [(record, record.call_id) for record in matches.missing]
            new = chain.from_iterable(
                events(each, self.pbx, id_, now, tenant) for each, id_ in found
            )
            await announce(self._settings, self._inbox, new, window=window)
        return Reconciled(
            pbx=self.pbx,
            since=since,
            until=until,
            records=len(records),
            here=len(matches.calls),
            closed=tuple(call for _, call in closing),
            recovered=matches.missing,
            days={tenant: [*self._days(tenant, records, matches, closing, fresh)]},
        )

    def _days(
        self,
        tenant: str,
        records: Sequence[RecordedCall],
        matches: Matches,
        closing: Sequence[tuple[RecordedCall, Call]],
        fresh: Container[str],
    ) -> Iterator[DayProof]:
        """What the comparison adds to each day."""
        zone = self._settings.of(self._access).pbx[self.pbx].tzinfo
        now, closed = datetime.now(UTC), {record.id: call.id for record, call in closing}
        missing = {record.id for record in matches.missing}
        for record in records:
            new = record.id in fresh
            lost, ended = record.id in missing, closed.get(record.id)
            if new or lost or ended is not None:
                yield DayProof(
                    day=record.began.astimezone(zone).date(),
                    records=int(new),
                    here=int(new and record.id in matches.calls),
                    recovered=(call_name(self.pbx, record.call_id, tenant),) if lost else (),
                    closed=(call_name(self.pbx, ended, tenant),) if ended is not None else (),
                    compared=now,
                )

    async def _listed(self, since: datetime, until: datetime) -> AsyncIterator[CallRecord]:
        """Yield the records made in a time span."""
        listing = self._api.call_records.list(
            # The default is the start of the month.
            start_date=since - MAX_CALL,
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
        tenant: str,
        records: Sequence[RecordedCall],
        extensions: Container[str],
        since: datetime,
        until: datetime,
    ) -> tuple[Matches, set[str]]:
        """Return the matches, and the ids of the calls whose end is unknown."""
        await self._wait_for_calls(until, tenant)
        first = min((record.began for record in records), default=since)
        kept = [
            each
            async for each in self._calls.since(first - SLACK, tenant)
            if each.state.pbx == self.pbx
            and any(part.extension in extensions for part in each.state.parts)
        ]
        first_events = await self._calls.first_events(kept)
        api_ids = {
            each.state.id: known_parameters(first_events[each.name].parameters).get("CallAPIID", "")
            for each in kept
            if each.name in first_events
        }
        region = self._settings.of(tenant).region
        calls = [summarize(each.state, region) for each in kept]
        if not records:  # then no call should have ended
            calls = [call for call in calls if call.ended and since <= call.ended <= until]
        matches = match(records, calls, {call: id_ for call, id_ in api_ids.items() if id_})
        return matches, {each.state.id for each in kept if _is_open(each)}

    async def _wait_for_calls(self, until: datetime, tenant: str) -> None:
        """Return when all events accepted before `until` are folded, so that no call is missing."""
        found = await infos(self._inbox.redis, "server")
        if min(each["uptime_in_seconds"] for each in found) < self._young.total_seconds():
            raise NotYet(
                "the Redis server was just started: receivers may still have callbacks in their "
                f"journals. Try again in {self._young.total_seconds() / 60:.0f} minutes"
            )
        for _ in range(self._checks):
            if await caught_up(self._inbox, until, tenant):
                return
            await asyncio.sleep(1)
        raise NotYet(
            "not all events are folded into calls yet: start the workers (`offhook work`), or try "
            "again when they have caught up"
        )


def _is_open(kept: Kept) -> bool:
    """Return whether neither a callback nor a record has ended the call."""
    state = kept.state
    return state.closed in (None, "silence") and not any(part.records for part in state.parts)
