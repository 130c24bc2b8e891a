"""Lookups for tests."""

import asyncio
from dataclasses import dataclass

from offhook import Context, Lookup, Number


@dataclass(frozen=True)
class Slow(Lookup):
    """Never answer in time."""

    async def name_of(self, number: Number, context: Context) -> str | None:
        await asyncio.sleep(60)
        return "late"


@dataclass(frozen=True)
class Broken(Lookup):
    """A lookup with a bug."""

    def name_of(self, number: Number, context: Context) -> str | None:
        raise ZeroDivisionError("this lookup is broken")
