"""Look up the locked releases in the package index: known vulnerabilities, and yanked releases.

Part of `make check`. Advisories are about Python packages. Servers and C libraries inside wheels
(Valkey, PostgreSQL, librdkafka) are not looked up.
"""

import asyncio
import re
import sys
import time
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
from pip._internal.models.index import PyPI

ROOT = Path(__file__).parents[1]
LOCKS = sorted([*ROOT.glob("requirements/*.txt"), *ROOT.glob("tests/real_crm/*.txt")])
PIN = re.compile(r"^([\w.-]+)(?:\[[^]]*\])?==([^\s;]+)", re.MULTILINE)
CACHE = Path(sys.prefix) / "audit.txt"
CACHED = 12 * 3600  # seconds

# Advisories that do not concern Offhook: {"PYSEC-2026-1": "why"}.
ACCEPTED: dict[str, str] = {}

Pin = tuple[str, str]


def pins(locks: Iterable[Path]) -> list[Pin]:
    """Return each name and version in the lock files once."""
    return sorted({pin for lock in locks for pin in PIN.findall(lock.read_text())})


async def look_up(index: httpx.AsyncClient, pin: Pin) -> tuple[list[str], bool]:
    """Return the faults of a release, and whether the index has its advisories.

    Raises:
        httpx.HTTPError: no usable response.
    """
    name, version = pin
    response = await index.get(f"{name}/{version}/json")
    if response.status_code == 404:  # some mirrors have advisories of latest releases only
        response = await index.get(f"{name}/json")
        if response.status_code == 404:
            return ["no longer in the package index"], True
    found: dict[str, Any] = response.raise_for_status().json()
    known = found["info"]["version"] == version
    files = found["urls"] if known else found["releases"].get(version, [])
    faults = ["yanked from the package index"] if any(file["yanked"] for file in files) else []
    for advisory in found["vulnerabilities"] if known else []:
        if not advisory["withdrawn"] and not {advisory["id"], *advisory["aliases"]} & {*ACCEPTED}:
            fixed = ", ".join(advisory["fixed_in"]) or "no release"
            faults.append(f"{advisory['id']} (fixed in {fixed}): {advisory['link']}")
    return faults, known


async def audit(locked: list[Pin], url: str) -> tuple[list[str], bool]:
    """Return the lines to print, and whether a locked release must change.

    Raises:
        httpx.HTTPError: no usable response.
    """
    limits = httpx.Limits(max_connections=16)
    timeout = httpx.Timeout(10, pool=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=timeout) as index:
        results = await asyncio.gather(*(look_up(index, pin) for pin in locked))
    told = dict(zip(map("==".join, locked), results, strict=True))
    faults = [f"  {release}: {fault}" for release, (found, _) in told.items() for fault in found]
    unknown = [release for release, (_, known) in told.items() if not known]
    lines = [
        f"audit: {len(told) - len(unknown)} of {len(told)} locked releases checked for known"
        f" vulnerabilities, all for yanking: {len(faults) or 'no'} faults"
    ]
    if unknown:
        lines.append(f"  no advisories in this index, NOT checked: {', '.join(unknown)}")
    if faults:
        advice = "make lock UPGRADE=1, or name the advisory and a reason in requirements/audit.py"
        lines += [*faults, f"  What to do: {advice}"]
    return lines, bool(faults)


def main(locks: Iterable[Path] = LOCKS, url: str = PyPI.pypi_url, cache: Path = CACHE) -> int:
    locked = pins(locks)
    key = sha256(repr((locked, ACCEPTED)).encode()).hexdigest()
    if cache.exists() and time.time() - cache.stat().st_mtime < CACHED:
        before, _, said = cache.read_text().partition("\n")
        if before == key:
            print(said, "  (looked up less than 12 hours ago)", sep="\n")
            return 0
    try:
        lines, faulty = asyncio.run(audit(locked, url))
    except (httpx.HTTPError, ValueError, KeyError) as exc:
        cause = f"{type(exc).__name__}: {exc}".splitlines()[0]
        print(f"audit: SKIPPED, no release was checked. The package index failed: {cause}")
        return 0
    print(*lines, sep="\n")
    if not faulty:
        cache.write_text("\n".join([key, *lines]))
    return int(faulty)


if __name__ == "__main__":
    sys.exit(main())
