"""`BlockingCluster`: the client for threads and for what starts and stops processes."""

from collections.abc import Callable
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.cluster import ClusterNode
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException
from redis.retry import Retry

from offhook.redis_servers.redis_url import ClusterUrl

T = TypeVar("T")


class BlockingCluster(redis.Redis):
    """redis-py's `RedisCluster`, which is connected with the first command and not when it is made.

    Args:
        url: where some nodes are.
        tries: how often a command is repeated, each time after a look at who has the slots.
        options: of redis-py, for every node.
    """

    def __init__(self, url: ClusterUrl, tries: int, options: dict[str, Any]) -> None:
        host, port = url.nodes[0]
        self._url = url
        self._options = options | url.options | {"retry": Retry(NoBackoff(), tries)}
        self._connected: Any = None
        super().__init__(host=host, port=port, **options | url.options)  # to encode

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command where its slot is."""
        return self.within(lambda cluster: cluster.execute_command(*args, **options))

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Any:
        """A pipeline. The keys of a transaction must be in one slot."""
        return _Pipeline(self, transaction)

    def transaction(self, func: Any, *watches: Any, **options: Any) -> Any:
        """As of a plain client; all keys must be in one slot."""
        return self.within(lambda cluster: cluster.transaction(func, *watches, **options))

    def close(self) -> None:
        """Close all connections."""
        if self._connected is not None:
            self._connected.close()
        super().close()

    def primaries(self) -> list[tuple[str, int]]:
        """The addresses of the nodes that have slots."""
        found = self.within(lambda cluster: cluster.get_primaries())
        return [(node.host, node.port) for node in found]

    def within(self, call: Callable[[Any], T]) -> T:
        """Call redis-py, some of whose exceptions for a cluster are no `RedisError`."""
        try:
            if self._connected is None:
                make: Any = ClusterNode
                nodes = [make(*address) for address in self._url.nodes]
                self._connected = redis.RedisCluster(startup_nodes=nodes, **self._options)
            return call(self._connected)
        except RedisClusterException as error:
            raise RedisConnectionError(str(error)) from error


class _Pipeline(Pipeline):
    def __init__(self, cluster: BlockingCluster, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands = self.command_stack

        def execute(cluster: Any) -> list[Any]:
            with cluster.pipeline(transaction=self.transaction) as pipeline:
                for args, options in commands:
                    pipeline.execute_command(*args, **options)
                found: list[Any] = pipeline.execute(raise_on_error)
                return found

        try:
            return self._cluster.within(execute)
        finally:
            self.reset()
