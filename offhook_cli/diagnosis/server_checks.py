"""Checks of a Redis or Valkey server."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis

from offhook.connection import connect_rq
from offhook.operations.server_check import RedisServer, about_version, loading, read_only
from offhook.operations.server_risks import (
    UNSEEN_SYNC,
    appendfsync,
    eviction,
    replicas_risk,
    unsynced,
    volatility,
)
from offhook.settings import Settings
from offhook_cli.diagnosis.findings import Finding, failed, megabytes, passed, warned

_FULL, _TIGHT = 0.9, 0.8  # of maxmemory; see `scripts/append.lua` and the scheduler
_MOST_APART = 2.0  # seconds between two clocks


@dataclass(frozen=True)
class SeenServer:
    """What a server says.

    Attributes:
        info: its INFO.
        synced: its `appendfsync`; None if it does not say.
        ahead: seconds that its clock is ahead of ours at least; negative if it is behind.
    """

    server: RedisServer
    settings: Settings
    info: Mapping[str, Any]
    synced: str | None
    ahead: float

    @property
    def has_inbox(self) -> bool:
        """Whether it is the server of the inbox, and not only that of RQ's jobs."""
        return self.server.setting == "redis_url"


def look_at(server: RedisServer, settings: Settings) -> SeenServer:
    """Ask a server.

    Raises:
        RedisError: it does not answer, or not in words that Offhook knows.
    """
    with connect_rq(server.url, tries=1) as redis:
        info: Any = redis.info()
        return SeenServer(server, settings, info, appendfsync(redis), _ahead(redis))


def _ahead(redis: Redis) -> float:
    before = time.time()
    seconds, microseconds = redis.time()
    there, after = seconds + microseconds / 1e6, time.time()
    return float(max(0.0, there - after) or min(0.0, there - before))


def version(seen: SeenServer) -> Iterator[Finding]:
    """It is new enough."""
    if sentence := about_version(seen.info, seen.server):
        yield failed(sentence)
    else:
        valkey = seen.info.get("valkey_version")
        name = f"Valkey {valkey}" if valkey else f"Redis {seen.info.get('redis_version')}"
        yield passed(f"answers: {name}")


def role(seen: SeenServer) -> Iterator[Finding]:
    """It can be written to."""
    sentences = (loading(seen.info, seen.server), read_only(seen.info, seen.server))
    yield from map(failed, filter(None, sentences))


def memory(seen: SeenServer) -> Iterator[Finding]:
    """It has memory left."""
    used, most = seen.info.get("used_memory", 0), seen.info.get("maxmemory", 0)
    share = used / most if most else 0
    said = f"uses {share:.0%} of its maxmemory ({megabytes(used)} of {megabytes(most)})"
    if not most:
        unlimited = f"uses {megabytes(used)}, and its maxmemory is not set"
        yield warned(
            f"{unlimited}: if the machine runs out of memory, the system kills the server; set "
            "maxmemory, so that it refuses events before, and the journal takes them"
            if seen.has_inbox
            else f"{unlimited}: set it"
        )
    elif share > _FULL and seen.has_inbox:
        yield failed(
            f"{said}: the inbox is full, and events wait in the journal; raise maxmemory, or see "
            "with `offhook status` which handler is behind"
        )
    elif share > _TIGHT:
        early = ": delivered events are deleted before keep_days" if seen.has_inbox else ""
        yield warned(f"{said}{early}; raise maxmemory")
    else:
        yield passed(said)


def evicts(seen: SeenServer) -> Iterator[Finding]:
    """It deletes nothing when it is full."""
    if sentence := eviction(seen.info):
        yield failed(sentence)
    else:
        yield passed("deletes nothing when it is full (maxmemory-policy noeviction)")


def persistence(seen: SeenServer) -> Iterator[Finding]:
    """It keeps events when it restarts, or its machine does."""
    risks = [volatility(seen.info)]
    if not risks[0]:
        risks = [UNSEEN_SYNC if seen.synced is None else unsynced(seen.synced)]
    yield from map(warned, filter(None, risks))
    if not any(risks):
        loss = {"everysec": "a power failure may cost the last second"}
        said = loss.get(str(seen.synced), "a power failure costs nothing")
        yield passed(
            f"keeps events on its disk (appendonly yes, appendfsync {seen.synced}): {said}"
        )


def disk(seen: SeenServer) -> Iterator[Finding]:
    """It can write to its disk."""
    for name, what in (("aof_last_write_status", "append-only file"),
                       ("rdb_last_bgsave_status", "snapshot")):  # fmt: skip
        if seen.info.get(name, "ok") != "ok":
            yield failed(
                f"could not write its {what}, and may refuse events: see its log; is its disk full?"
            )


def durability(seen: SeenServer) -> Iterator[Finding]:
    """It can confirm events as `durability` and `replicas` ask."""
    if not seen.has_inbox:
        return
    wanted = seen.settings.durability
    if wanted == "disk" and volatility(seen.info):
        yield failed(
            'has no append-only file to confirm events (durability "disk"): every event goes to '
            "the journal; set appendonly to yes"
        )
    elif wanted == "replica" and (sentence := replicas_risk(seen.info, seen.settings)):
        enough = seen.info.get("connected_slaves", 0) >= (seen.settings.replicas or 0)
        yield warned(sentence) if enough else failed(sentence)
    else:
        yield passed(f'satisfies durability = "{wanted}"')


def clock(seen: SeenServer) -> Iterator[Finding]:
    """Its clock and that of this machine agree."""
    if abs(seen.ahead) > _MOST_APART:
        how = "ahead of" if seen.ahead > 0 else "behind"
        yield warned(
            f"its clock is {abs(seen.ahead):.0f} s {how} that of this machine, so redeliveries and "
            "times in reports are wrong: synchronize both with NTP"
        )
    else:
        yield passed("its clock agrees with that of this machine")


CHECKS = (version, role, memory, evicts, persistence, disk, durability, clock)
