"""The inbox: the log of accepted events, and the position of each handler on it."""

from offhook.inbox.appender import BLOCK_MS, Durability
from offhook.inbox.entries import Batch, HandlerState, partition_of
from offhook.inbox.lanes import ParkedLanes
from offhook.inbox.leases import release_leases
from offhook.inbox.partition import Partition
from offhook.inbox.stream import Inbox

__all__ = [
    "BLOCK_MS",
    "Batch",
    "Durability",
    "HandlerState",
    "Inbox",
    "ParkedLanes",
    "Partition",
    "partition_of",
    "release_leases",
]
