"""The processes of an installation, as each reports itself, and the reload that they follow."""

import secrets
import time
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version
from typing import Any, Literal

import msgspec
from redis import Redis
from redis.client import Pipeline

from offhook.inbox import keys
from offhook.operations.running_files import Loaded

ALIVE_FOR = 10.0  # seconds from a process's last report until it counts as gone
LOOK_EVERY = 1.0  # seconds from one report to the next
_KEEP = 86_400.0  # seconds that a reload is known, for processes that cannot reach Redis meanwhile
OFFHOOK = version("offhook")  # of the code that this process runs


class Process(msgspec.Struct, frozen=True):
    """A process of `offhook serve`, `offhook work` or `offhook console`.

    Attributes:
        reload: the id of the reload that `step` is about.
        step: how far it is; empty if it takes part in none.
        problems: why it refuses the new version, a sentence each.
    """

    loaded: Loaded
    reload: str = ""
    step: Literal["", "preparing", "ready", "changing", "done", "refused"] = ""
    problems: list[str] = []

    def __str__(self) -> str:
        return f"`{self.loaded.program}` on {self.loaded.host} (process {self.loaded.pid})"


class Reload(msgspec.Struct, frozen=True):
    """A new version, for all processes.

    Attributes:
        id: unique.
        at: when it began, in ISO 8601.
        loaded: the version.
        offhook: the version of Offhook that checked it.
        committed: every process is ready: change to it.
    """

    id: str
    at: str
    loaded: Loaded
    offhook: str
    committed: bool = False

    @classmethod
    def to(cls, loaded: Loaded) -> "Reload":
        """To this version, now."""
        at = datetime.now().astimezone().isoformat()
        return cls(secrets.token_hex(8), at, loaded, OFFHOOK)


_processes = msgspec.json.Decoder(Process)
_reloads = msgspec.json.Decoder(Reload)
_encode = msgspec.json.Encoder().encode


def report(redis: Redis, name: str, process: Process) -> Reload | None:
    """Show what a process runs, for `ALIVE_FOR` seconds. Return the reload that there is, if any.

    Args:
        name: unique in the installation. Containers may share a host's name and process ids.

    Raises:
        RedisError: Redis does not answer.
    """
    now = time.time()
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.get(keys.RELOAD)
        pipeline.set(keys.process(name), _encode(process), px=int(ALIVE_FOR * 1000))
        pipeline.zadd(keys.PROCESSES, {name: now})
        pipeline.zremrangebyscore(keys.PROCESSES, 0, now - ALIVE_FOR)
        pipeline.zremrangebyscore(keys.PROCESSES, now + ALIVE_FOR, "+inf")
        return _read(pipeline.execute()[0])


def leave(redis: Redis, name: str) -> None:
    """Forget a process, because it ends."""
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.delete(keys.process(name))
        pipeline.zrem(keys.PROCESSES, name)
        pipeline.execute()


def running(redis: Redis) -> list[Process]:
    """The processes that run, the one that has loaded its files first before the others.

    Raises:
        RedisError: Redis does not answer.
    """
    names: Any = redis.zrange(keys.PROCESSES, 0, -1)
    with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.get(keys.process(name.decode()))
        stored = pipeline.execute()
    found = []
    for each in filter(None, stored):
        with suppress(msgspec.ValidationError):  # of another version of Offhook
            found.append(_processes.decode(each))
    return sorted(found, key=lambda each: (each.loaded.at, each.loaded.host, each.loaded.pid))


def begin(redis: Redis, reload: Reload, seconds: float) -> bool:
    """Have all processes prepare a reload, unless another one is being prepared.

    Args:
        seconds: until they forget it, unless it is committed.
    """

    def set_it(pipeline: Pipeline) -> None:
        earlier = _read(pipeline.get(keys.RELOAD))  # type: ignore[arg-type]
        pipeline.multi()
        if earlier is None or earlier.committed:
            pipeline.set(keys.RELOAD, _encode(reload), px=int(seconds * 1000))

    return bool(redis.transaction(set_it, keys.RELOAD))


def commit(redis: Redis, reload: Reload) -> None:
    """Have all processes change to the version that they have prepared."""
    committed = msgspec.structs.replace(reload, committed=True)
    redis.set(keys.RELOAD, _encode(committed), px=int(_KEEP * 1000))


def cancel(redis: Redis) -> None:
    """Have all processes forget what they have prepared."""
    redis.delete(keys.RELOAD)


def _read(stored: bytes | None) -> Reload | None:
    try:
        return _reloads.decode(stored) if stored else None
    except msgspec.ValidationError:  # of another version of Offhook
        return None
