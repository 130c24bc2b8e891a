"""The inbox: the log of accepted events, and the position of each handler on it."""

from offhook.inbox.entries import Batch, HandlerState, partition_of
from offhook.inbox.lanes import ParkedLanes
from offhook.inbox.partition import Partition, release_leases
from offhook.inbox.stream import BLOCK_MS, Durability, Inbox

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
