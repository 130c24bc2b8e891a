"""`Turns`: which partitions may work on a tenant's backlog now.

An event passes several turns of the event loop, in each of which every partition makes its next
step. If all of them made a step with a tenant's flood, each of these turns would be long.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

STEP = 16  # events of a tenant in one step, where there are several tenants


class Turns:
    """Lets one partition at a time work on a tenant's backlog.

    Args:
        needed: whether there are tenants; else no other has to wait, and all work at once.
    """

    def __init__(self, *, needed: bool = True) -> None:
        self._needed = needed
        self._taken: set[str] = set()
        self._waiting: dict[str, dict[Callable[[], None], None]] = {}

    @contextmanager
    def taking(self, again: Callable[[], None]) -> Iterator[Callable[[str], bool]]:
        """Yield a function that takes the turn with a tenant, and has it until the context ends.

        Args:
            again: called when a turn is free that another had.
        """
        mine: list[str] = []

        def is_mine(tenant: str) -> bool:
            if self._needed and tenant not in mine:
                if not self.take(tenant, again):
                    return False
                mine.append(tenant)
            return True

        try:
            yield is_mine
        finally:
            self.give_back(mine)

    def take(self, tenant: str, again: Callable[[], None]) -> bool:
        """Take the turn with a tenant. If another has it, `again` is called when it is free."""
        if tenant in self._taken:
            self._waiting.setdefault(tenant, {})[again] = None
            return False
        self._taken.add(tenant)
        return True

    def give_back(self, tenants: Iterable[str]) -> None:
        """Give back the turns with these tenants."""
        for tenant in tenants:
            self._taken.remove(tenant)
            for again in self._waiting.pop(tenant, ()):
                again()
