"""Lookups for tests."""

import asyncio
from dataclasses import dataclass

from offhook import Context, Lookup, Number


@dataclass(frozen=True)
class Slow(Lookup):
    """One that never answers in time."""

    async def name_of(self, number: Number, context: Context) -> str | None:
        await asyncio.sleep(60)
        return "late"


@dataclass(frozen=True)
class Broken(Lookup):
    """One that has a bug."""

    def name_of(self, number: Number, context: Context) -> str | None:
        raise ZeroDivisionError("this lookup is broken")
