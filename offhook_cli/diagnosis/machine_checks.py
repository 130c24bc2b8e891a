"""Checks of the machine that the doctor runs on."""

import resource
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import as_file, files
from pathlib import Path
from zoneinfo import ZoneInfo

from offhook.settings import Settings
from offhook_cli.diagnosis.findings import Finding, passed, warned

_FILES = 16_384  # enough for the receiver's 10,000 connections and what it keeps free besides
_DAYS = 730  # how far ahead the rules of time zones are compared


def open_files(seen: Settings) -> Iterator[Finding]:
    """A process may open enough files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FILES:
        yield warned(
            f"a process of this user may open only {hard:,} files, so the receiver takes fewer "
            "connections: raise the limit (LimitNOFILE in its unit, or `ulimit -n`)"
        )
    else:
        yield passed("a process of this user may open enough files")


def time_zones(seen: Settings) -> Iterator[Finding]:
    """The databases of time zones on this machine agree about the zones of the settings."""
    names = sorted({each.zone for each in seen.pbx.values() if each.zone})
    differing = [name for name in names if len(_rules(name)) > 1]
    for name in differing:
        yield warned(
            f"this machine has two databases of time zones that differ about {name}: update the "
            "system's (Debian: apt install tzdata) and Python's (pip install --upgrade tzdata)"
        )
    if names and not differing:
        yield passed(f"the time zones of the settings are known: {', '.join(names)}")


def _rules(zone: str) -> set[tuple[timedelta | None, ...]]:
    """The offsets of a zone in the next years, by each database; none if it is damaged."""
    now = datetime.now(UTC)
    days = [now + timedelta(days=day) for day in range(_DAYS)]
    found = set[tuple[timedelta | None, ...]]()
    for path in _databases(zone):
        try:
            with path.open("rb") as file:
                rules = ZoneInfo.from_file(file)
        except ValueError:
            found.add(())
        else:
            found.add(tuple(day.astimezone(rules).utcoffset() for day in days))
    return found


def _databases(zone: str) -> Iterator[Path]:
    for folder in zoneinfo.TZPATH:
        if (path := Path(folder, zone)).is_file():
            yield path
    try:
        packaged = files("tzdata").joinpath("zoneinfo", *zone.split("/"))
    except ModuleNotFoundError:
        return
    if packaged.is_file():
        with as_file(packaged) as path:
            yield path


CHECKS = (open_files, time_zones)
