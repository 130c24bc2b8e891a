"""`Turns`: which partitions may work on a tenant's backlog now.

An event passes several turns of the event loop, in each of which every partition makes its next
step. If all of them made a step with a tenant's flood, each of these turns would be long.
"""

from collections.abc import Callable, Iterable


class Turns:
    """Lets one partition at a time work on a tenant's backlog."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._waiting: dict[str, dict[Callable[[], None], None]] = {}

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
