"""What a shell completes: names in the configuration, and ids in Redis.

typer asks the functions below, and chooses the values that begin as the word does. Nothing may
disturb the line that a person types: whatever is wrong, they offer nothing, and the command itself
will say why.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from redis import Redis

from offhook.connection import connect_rq
from offhook.event import CALLBACKS
from offhook.inbox import keys
from offhook.settings import load_settings

Find = Callable[[], Iterable[str]]
Values = Callable[[], list[str]]

_PATIENCE = 0.3  # seconds for each response of Redis
_MOST = 10  # ids of each partition or handler
# Zsh evaluates what it gets, and a CallID may be any text.
_HARMLESS = re.compile(r"[\w.,:=@*/+-]+", re.ASCII)


def _values(find: Find) -> Values:
    def complete() -> list[str]:
        try:
            return _harmless(find())
        except Exception:  # noqa: BLE001 - the command itself will say
            return []

    return complete


def separated_by_commas(values: Values) -> Callable[[str], list[str]]:
    """Complete the last value of a list such as `crm,notify`."""

    def complete(incomplete: str) -> list[str]:
        before = incomplete[: incomplete.rfind(",") + 1]
        return _harmless(before + each for each in values() if each not in before.split(","))

    return complete


@_values
def handlers() -> Iterable[str]:
    return load_settings().handlers


@_values
def forgotten_handlers() -> Iterable[str]:
    """Handlers that have a position and are no longer configured."""
    settings = load_settings()
    with _connect(settings.redis_url) as redis:
        return _decoded(redis.hkeys(keys.known(0))) - settings.handlers.keys()


@_values
def plugins() -> Iterable[str]:
    """The installed handlers and lookups."""
    from offhook.plugins import installed

    return {**installed("handlers"), **installed("lookups")}


@_values
def tenants() -> Iterable[str]:
    return load_settings().tenants


@_values
def pbxs() -> Iterable[str]:
    return load_settings().pbx or ["main"]


@_values
def extensions() -> Iterable[str]:
    """The extensions that were set up."""
    with _connect(load_settings().redis_url) as redis:
        names = _decoded(redis.hkeys(keys.EXTENSIONS))
    return {number for name in names if (number := name.partition("/")[2])}


@_values
def event_types() -> Iterable[str]:
    """The event types of the PBX."""
    return CALLBACKS


@_values
def calls() -> Iterable[str]:
    """The newest calls."""
    settings = load_settings()
    with _connect(settings.redis_url) as redis, redis.pipeline(transaction=False) as pipeline:
        for partition in range(settings.partitions):
            pipeline.zrevrange(keys.calls(partition), 0, _MOST - 1)
        return _decoded(name for names in pipeline.execute() for name in names)


@_values
def dead_letters() -> Iterable[str]:
    """The newest dead letters of each handler."""
    from offhook import queues

    with _connect(load_settings().jobs_url) as rq:
        registries = [queues.dead_registry(rq, name) for name in queues.with_dead_letters(rq)]
        return [
            letter
            for each in registries
            for letter in each.get_job_ids(0, _MOST - 1, desc=True, cleanup=False)
        ]


@_values
def refused_callbacks() -> Iterable[str]:
    """The newest callbacks in the quarantine."""
    with _connect(load_settings().redis_url) as redis:
        entries: Any = redis.xrevrange(keys.quarantine(), count=_MOST)
    return _decoded(key for key, _ in entries)


def _harmless(values: Iterable[str]) -> list[str]:
    return [each for each in values if _HARMLESS.fullmatch(each)]


def _connect(url: str) -> Redis:
    return connect_rq(url, tries=0, timeout=_PATIENCE)


def _decoded(names: Any) -> set[str]:
    return {name.decode() for name in names}
