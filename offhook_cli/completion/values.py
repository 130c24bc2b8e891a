"""What completes a word: names from offhook.toml, and numbers and ids from Redis."""

import os
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from offhook_cli.completion.redis_reader import ask

_MOST = 50  # ids and extensions
Keys = Mapping[str, str]


def find(source: str, begun: str, keys: Keys) -> list[str]:
    """The known values that begin so.

    Args:
        source: the name of a function below; with a comma after it, values are separated by commas.
        keys: in Redis, by the name of the source.
    """
    before, comma, last = begun.rpartition(",") if source.endswith(",") else ("", "", begun)
    found: list[str] = []
    with suppress(Exception):  # whatever is wrong, the command itself will say
        found = _SOURCES[source.removesuffix(",")](last, keys)
    chosen = [each for each in dict.fromkeys(found) if each.startswith(last)]
    return [f"{before}{comma}{each}" for each in chosen if each not in before.split(",")]


def _handlers(begun: str, keys: Keys) -> list[str]:
    return [*_table("handlers")]


def _pbxs(begun: str, keys: Keys) -> list[str]:
    return [*_table("pbx")] or ["main"]


def _events(begun: str, keys: Keys) -> list[str]:
    return ["dial-in", "dial-out", "hangup", "answer-in", "answer-out", "all"]


def _plugins(begun: str, keys: Keys) -> list[str]:
    from importlib.metadata import entry_points

    groups = ("offhook.handlers", "offhook.lookups")
    return sorted({each.name for group in groups for each in entry_points(group=group)})


def _extensions(begun: str, keys: Keys) -> list[str]:
    escaped = "".join(f"\\{each}" if each in "*?[]\\" else each for each in begun)
    # One step, of as many as a server reads in some milliseconds.
    (found,) = _redis(
        ["HSCAN", keys["extensions"], "0", "MATCH", f"*/{escaped}*", "COUNT", "10000"]
    )
    fields = [each.decode() for each in found[1][::2]]
    return sorted(each.rpartition("/")[2] for each in fields)[:_MOST]


def _calls(begun: str, keys: Keys) -> list[str]:
    """The newest calls, by their whole id or by their CallID."""
    partitions = int(_setting("partitions") or 16)
    lists = _redis(
        *(
            ["ZREVRANGE", keys["calls"] % number, "0", "9", "WITHSCORES"]
            for number in range(partitions)
        )
    )
    found = [
        (float(score), name.decode())
        for each in lists
        for name, score in zip(each[::2], each[1::2], strict=True)
    ]
    names = [name for _, name in sorted(found, reverse=True)]
    if begun and not any(each.startswith(begun) for each in names):
        names = [each.partition("/")[2] for each in names]
    return names[:_MOST]


def _dead_letters(begun: str, keys: Keys) -> list[str]:
    """The newest of each configured handler."""
    lists = _redis(
        *(["ZREVRANGE", keys["dead_letters"] % name, "0", "19"] for name in _table("handlers"))
    )
    return sorted(each.decode() for ids in lists for each in ids)


def _refused(begun: str, keys: Keys) -> list[str]:
    (entries,) = _redis(["XREVRANGE", keys["refused"], "+", "-", "COUNT", "10"])
    return [each[0].decode() for each in entries]


def _forgotten(begun: str, keys: Keys) -> list[str]:
    """The handlers that have a position and are no longer configured."""
    (names,) = _redis(["HKEYS", keys["forgotten"]])
    return sorted({each.decode() for each in names} - _table("handlers").keys())


_SOURCES: dict[str, Callable[[str, Keys], list[str]]] = {
    "calls": _calls,
    "dead_letters": _dead_letters,
    "events": _events,
    "extensions": _extensions,
    "forgotten": _forgotten,
    "handlers": _handlers,
    "pbxs": _pbxs,
    "plugins": _plugins,
    "refused": _refused,
}
SOURCES = frozenset(_SOURCES)


def _path() -> Path:
    return Path(os.environ.get("OFFHOOK_CONFIG") or "offhook.toml")


def _configuration() -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return tomllib.loads(_path().read_text("utf-8"))
    return {}


def _table(name: str) -> dict[str, Any]:
    found = _configuration().get(name, {})
    return found if isinstance(found, dict) else {}


def _setting(name: str) -> str | None:
    """A setting from where `load_settings` takes it, which also checks it."""
    known = _configuration()
    variable = f"OFFHOOK_{name.upper()}"
    for value, file in (
        (os.environ.get(variable), os.environ.get(f"{variable}_FILE")),
        (known.get(name), known.get(f"{name}_file")),
    ):
        if value is not None:
            return str(value)
        if file:
            return (_path().parent / file).read_text("utf-8").strip()
    return None


def _redis(*commands: list[str]) -> list[Any]:
    return ask(_setting("redis_url") or "redis://127.0.0.1:6379/0", commands)
