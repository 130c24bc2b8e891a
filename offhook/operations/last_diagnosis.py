"""What `offhook doctor` found when the workers ran it last."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis.asyncio import Redis

from offhook.inbox import keys


class LastDiagnosis(msgspec.Struct, frozen=True):
    """The result of a run.

    Attributes:
        at: when it ended.
        host: where it ran: some checks are about that machine.
        counts: verdict -> number of findings.
        problems: the sentences of failures and warnings, failures first.
    """

    at: datetime
    host: str
    counts: dict[str, int]
    problems: list[str]

    @classmethod
    def of(cls, found: Mapping[str, Any], host: str) -> "LastDiagnosis":
        """The result from what `offhook doctor --json` prints."""
        every = [finding for part in found["parts"] for finding in part["findings"]]
        problems = [
            finding["sentence"]
            for verdict in ("fail", "warn")
            for finding in every
            if finding["verdict"] == verdict
        ]
        return cls(datetime.now(UTC), host, dict(found["counts"]), problems)

    def sentences(self, now: datetime, but: Collection[str] = ()) -> list[str]:
        """The problems but for some, each with where and when it was found."""
        minutes = int((now - self.at).total_seconds() / 60)
        return [
            f"{sentence} (`offhook doctor` on {self.host}, {minutes} min ago)"
            for sentence in self.problems
            if sentence not in but
        ]


async def keep(redis: Redis, found: LastDiagnosis, seconds: float) -> None:
    """Keep a result for some seconds."""
    await redis.set(keys.DIAGNOSIS, msgspec.json.encode(found), px=int(seconds * 1000))


async def last_diagnosis(redis: Redis) -> LastDiagnosis | None:
    """The last result, if it is not too old."""
    stored: Any = await redis.get(keys.DIAGNOSIS)
    return None if stored is None else msgspec.json.decode(stored, type=LastDiagnosis)
