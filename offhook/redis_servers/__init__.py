"""Where the Redis servers are, and the clients of a cluster, used as those of one server."""

from offhook.redis_servers.blocking import BlockingCluster
from offhook.redis_servers.client import Cluster
from offhook.redis_servers.servers import (
    answers,
    grouped,
    infos,
    memory,
    memory_used,
    servers,
)

__all__ = [
    "BlockingCluster",
    "Cluster",
    "answers",
    "grouped",
    "infos",
    "memory",
    "memory_used",
    "servers",
]
