"""Handlers that misbehaved, and run in a process of their own until they behave again."""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from redis import Redis

from offhook.inbox import keys

log = logging.getLogger("offhook.isolation")

_DEATHS_FOR = 86_400  # seconds


@dataclass(frozen=True)
class Apart:
    """Why a handler runs in a process of its own.

    Attributes:
        reason: in words, such as `blocks`.
        since: when it last gave cause, in seconds since 1970.
    """

    reason: str
    since: float

    @classmethod
    def now(cls, reason: str) -> "Apart":
        """For a cause given just now."""
        return cls(reason, time.time())

    def stored(self) -> str:
        """The form that Redis has."""
        return json.dumps(asdict(self))


def read_apart(stored: Mapping[bytes, bytes]) -> dict[str, Apart]:
    """The handlers that run apart, from the hash `offhook:apart`."""
    found = {}
    for name, value in stored.items():
        try:
            found[name.decode()] = Apart(**json.loads(value))
        except (ValueError, TypeError):
            log.error("the record of %r in %s cannot be read, ignored", name[:100], keys.APART)
    return found


def move_apart(redis: Redis, handler: str, reason: str) -> None:
    """Have a handler served by a process of its own."""
    redis.hset(keys.APART, handler, Apart.now(reason).stored())


def count_death(redis: Redis, handler: str, event_id: str) -> int:
    """Count that a process died while the handler delivered an event. Return how often so far."""
    count: Any = redis.hincrby(keys.DEATHS, f"{handler} {event_id}", 1)
    redis.expire(keys.DEATHS, _DEATHS_FOR)
    return int(count)
