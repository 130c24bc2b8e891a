"""A lookup for tests that knows one name for every number."""

from dataclasses import dataclass

from offhook import Context, Lookup, Number


@dataclass(frozen=True)
class Fixed(Lookup):
    """Give every caller the same name."""

    name: str

    async def name_of(self, number: Number, context: Context) -> str | None:
        return self.name
