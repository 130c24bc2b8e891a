"""`KeptCalls`: the calls that a partition's events are folded into, from memory or from Redis."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from offhook.calls import extensions_of, name_of_latest
from offhook.inbox.call_store import Kept

if TYPE_CHECKING:
    from workers.serving.partition_server import Server

MOST_KEPT = 2_000  # calls in memory


class KeptCalls:
    """The calls of one partition; those that were changed last are in memory."""

    def __init__(self, server: "Server", partition: int) -> None:
        self._calls = server.calls
        self._extensions = server.extensions
        self._partition = partition
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    async def load_with_latest(self, names: Sequence[str]) -> dict[str, Kept]:
        """The calls of these names, and the latest call of each CallID that is used again."""
        kept = await self.load(names)
        latest = [name_of_latest(name, each.state) for name, each in kept.items()]
        return kept | await self.load([name for name in latest if name not in kept])

    async def load(self, names: Sequence[str]) -> dict[str, Kept]:
        """The calls of these names that exist, by name."""
        missing = [name for name in names if name not in self._kept]
        found = await self._calls.load(self._partition, missing) if missing else {}
        await self._extensions.load(
            name for each in found.values() for name in extensions_of(each.state)
        )
        return found | {name: self._kept[name] for name in names if name in self._kept}

    def keep(self, calls: Iterable[Kept]) -> None:
        """Keep calls, as Redis has them now, in memory."""
        for call in calls:
            self._kept[call.name] = call
            self._kept.move_to_end(call.name)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget what is in memory: Redis may have something else."""
        self._kept.clear()
