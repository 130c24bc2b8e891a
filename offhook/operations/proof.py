"""Proof: for each day, the calls in a PBX's own records beside those kept here.

The hourly comparison adds what it has found; each of the PBX's records counts once.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace
from redis.asyncio import Redis

from offhook.inbox import keys

KEPT_DAYS = 90
_MOST_CALLS = 100  # of a day, by name


class DayProof(msgspec.Struct, frozen=True, kw_only=True):
    """One day of one PBX.

    Attributes:
        day: in the time zone of the PBX, when the calls began.
        records: number of calls in the PBX's records.
        here: number of these that callbacks told of.
        recovered: the calls that no callback told of, and that were recovered from the records, by
            name; at most 100.
        closed: the calls whose end only a record told, by name; at most 100.
        compared: when the last of the records were compared, UTC.
    """

    day: date
    records: int = 0
    here: int = 0
    recovered: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    compared: datetime

    def __add__(self, other: "DayProof") -> "DayProof":
        """Both results of the same day."""
        return replace(
            self,
            records=self.records + other.records,
            here=self.here + other.here,
            recovered=_together(self.recovered, other.recovered),
            closed=_together(self.closed, other.closed),
            compared=max(self.compared, other.compared),
        )

    @property
    def missing(self) -> int:
        """Number of calls in the records that are neither here nor recovered."""
        return max(0, self.records - self.here - len(self.recovered))


async def added(
    redis: Redis, pbx: str, tenant: str, found: Iterable[DayProof]
) -> tuple[Mapping[str, bytes], list[str]]:
    """The fields of `keys.proof` once this is added, and those that are too old."""
    known = {each.day: each for each in await days_of(redis, pbx, tenant)}
    changed = {}
    for each in found:
        known[each.day] = known[each.day] + each if each.day in known else each
        changed[each.day.isoformat()] = msgspec.json.encode(known[each.day])
    first = datetime.now(UTC).date() - timedelta(days=KEPT_DAYS)
    return changed, [day.isoformat() for day in known if day < first]


async def days_of(
    redis: Redis, pbx: str, tenant: str = "", days: int = KEPT_DAYS
) -> list[DayProof]:
    """The last days that were compared, newest first."""
    found: Any = redis.hgetall(keys.proof(pbx, tenant))
    stored: Mapping[bytes, bytes] = await found
    read = [msgspec.json.decode(each, type=DayProof) for each in stored.values()]
    first = datetime.now(UTC).date() - timedelta(days=days)
    return sorted(
        (each for each in read if each.day > first), key=lambda each: each.day, reverse=True
    )


async def compared_until(redis: Redis, pbx: str, tenant: str = "") -> datetime | None:
    """Up to when a PBX's records were compared; None: not yet."""
    found: Any = redis.hget(keys.reconciled(pbx, tenant), "until")
    stored: bytes | None = await found
    return None if stored is None else datetime.fromisoformat(stored.decode())


def _together(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*before, *after)))[:_MOST_CALLS]
