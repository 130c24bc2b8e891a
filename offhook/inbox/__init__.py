"""The inbox: the log of accepted events, and the position of each handler on it."""

from offhook.call import CALL_LOG
from offhook.inbox.cursor import Cursor, release_lease
from offhook.inbox.entries import Batch, CursorState, Entry, partition_of
from offhook.inbox.lanes import ParkedLanes
from offhook.inbox.stream import BLOCK_MS, LEASE_MS, Durability, Inbox

__all__ = [
    "BLOCK_MS",
    "CALL_LOG",
    "LEASE_MS",
    "Batch",
    "Cursor",
    "CursorState",
    "Durability",
    "Entry",
    "Inbox",
    "ParkedLanes",
    "partition_of",
    "release_lease",
]
