"""`Cluster`: the asyncio client. It sends each command to the node that has the key's slot.

redis-py has a cluster client, and this one uses its clients of single servers instead: the former
closes the connections to all nodes when one fails, sends `ASKING` and the command that it is for
through different connections, needs a thread for each command of a transaction, and takes no script
in a pipeline.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from offhook.redis_servers.execution import Execution
from offhook.redis_servers.nodes import Nodes
from offhook.redis_servers.pipeline import ClusterPipeline
from offhook.redis_servers.redis_url import ClusterUrl
from offhook.redis_servers.slots import SEPARABLE, Address, by_slot, slot_of

# While a slot is moved key by key, a node that has only some of its keys refuses the others, also
# in the middle of a script, which has written something then. The first line of a script asks for
# a key that never exists, so that the node refuses the script before it has done anything.
_GUARD = "if KEYS[1]:find('{', 1, true) then redis.call('EXISTS', KEYS[1] .. ':moving') end "


class Cluster(Redis):
    """A client of all nodes of a cluster.

    A pipeline is spread over the nodes, and a transaction and a script keep to one slot. `DEL`,
    `EXISTS`, `MGET` and `UNLINK` may have keys in several; `scan_iter` covers all nodes; a command
    without a key goes to any of them.

    Args:
        url: where some nodes are.
        tries: how often a command is repeated that a node did not answer, or cannot execute now.
        options: of redis-py, for every node.

    Attributes:
        nodes: of the cluster.

    Raises:
        RedisError: from each method. A command that the cluster cannot execute now is a
            `redis.ConnectionError`, as if a server were away.
    """

    def __init__(self, url: ClusterUrl, tries: int, options: dict[str, Any]) -> None:
        options = options | url.options | {"retry": Retry(NoBackoff(), 0)}
        host, port = url.nodes[0]
        super().__init__(host=host, port=port, **options)  # to encode; it never connects
        self.tries = tries
        self.nodes = Nodes(url.nodes, options)
        self._scripts: dict[str, str] = {}

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command where its slot is."""
        if args[0] in SEPARABLE and len(args) > 2:
            slots = by_slot(args[1:])
            if len(slots) > 1:
                return await self._separate(args, list(slots.values()))
        nodes = self.nodes
        if not nodes.is_known:
            await nodes.look()
        slot = slot_of(args)
        if slot is None and nodes.is_old:
            nodes.look_soon()
        address = nodes.address(slot)
        try:
            return await nodes.client(address).execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            found = await Execution(self, [(args, options)]).go_on(address, error)
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> ClusterPipeline:
        """As of a plain client; the keys of a transaction must be in one slot."""
        return ClusterPipeline(self, transaction)

    def pubsub(self, **options: Any) -> PubSub:
        """Subscribe at any node: each has all messages."""
        return self.nodes.client(self.nodes.address(None)).pubsub(**options)

    def register_script(self, script: str) -> AsyncScript:  # type: ignore[override]
        """A script, which fails before it does anything while its slot is being moved."""
        registered = super().register_script(_GUARD + script)
        self._scripts[registered.sha] = _GUARD + script
        return registered

    async def scan_iter(self, *args: Any, **options: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        """The keys of all nodes; one that is being moved may come twice, or not at all."""
        for node in await self.nodes.primaries():
            async for key in node.scan_iter(*args, **options):
                yield key

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections."""
        await self.nodes.aclose()
        await super().aclose(close_connection_pool)

    async def load(self, address: Address, sha: str) -> bool:
        """Give a node a script that it does not know. Return whether it is one of ours."""
        text = self._scripts.get(sha)
        if text is not None:
            await self.nodes.client(address).script_load(text)
        return text is not None

    async def _separate(self, args: Sequence[Any], groups: Sequence[Sequence[int]]) -> Any:
        """Execute a command for the keys of each slot, and put the answers together."""
        name, *keys = args
        async with self.pipeline(transaction=False) as pipeline:
            for group in groups:
                pipeline.execute_command(name, *(keys[index] for index in group))
            answers = await pipeline.execute()
        if name != "MGET":
            return sum(answers)
        found: list[Any] = [None] * len(keys)
        for group, values in zip(groups, answers, strict=True):
            for index, value in zip(group, values, strict=True):
                found[index] = value
        return found
