"""`ClusterPipeline`: a pipeline that is spread over a cluster, or a transaction in one slot."""

from typing import TYPE_CHECKING, Any

from redis.asyncio.client import Pipeline
from redis.exceptions import AskError, ClusterDownError, TryAgainError, WatchError
from redis.exceptions import ConnectionError as RedisConnectionError

from offhook.redis_servers.execution import Execution
from offhook.redis_servers.slots import slot_of

if TYPE_CHECKING:
    from offhook.redis_servers.client import Cluster

_MOVING = (AskError, ClusterDownError, TryAgainError)


class ClusterPipeline(Pipeline):
    """Executes commands together, and those of different slots side by side.

    With `raise_on_error=False`, a result is an exception also if a node does not answer: the
    commands of other nodes are executed all the same.
    """

    def __init__(self, cluster: "Cluster", transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Execute the commands.

        Raises:
            RedisError: the first error, if it is to be raised.
            WatchError: a key that is watched was changed, or moved to another node.
        """
        if self.watching:
            found: list[Any] = await self._where_it_watches(super().execute(raise_on_error))
            return found
        atomic = self.is_transaction or self.explicit_transaction
        execution = Execution(
            self._cluster,
            self.command_stack,
            atomic=atomic,
            scripts=list(self.scripts) if atomic else [],
        )
        try:
            found = await execution.run()
        finally:
            await self.reset()  # type: ignore[no-untyped-call]
        failed = next((each for each in found if isinstance(each, Exception)), None)
        if failed is not None and (raise_on_error or atomic):
            raise failed
        return found

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command while keys are watched."""
        if self.connection is None:
            if not self._cluster.nodes.is_known:
                await self._cluster.nodes.look()
            node = self._cluster.nodes.client(self._cluster.nodes.address(slot_of(args)))
            self.connection_pool = node.connection_pool
        execution = super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]
        return await self._where_it_watches(execution)

    async def _where_it_watches(self, execution: Any) -> Any:
        try:
            return await execution
        except (*_MOVING, RedisConnectionError) as error:
            await self.reset()  # type: ignore[no-untyped-call]
            await self._cluster.nodes.look()
            raise WatchError(f"the slot of a key that is watched moved: {error}") from error
