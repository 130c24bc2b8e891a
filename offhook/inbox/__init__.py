"""The inbox: the log of accepted events. Nobody else knows its keys and its scripts.

A partition is one stream; a handler's cursor is a consumer group on it. All keys of a partition
share a hash tag, so partitions can spread over a cluster:

    offhook:{0}:inbox          the stream of partition 0; its entries: `e`, a stored event, and
                               `n`, its number
    offhook:{0}:last           the number of the last event
    offhook:{0}:written:WRITER the number of the last batch that this receiver has written
    offhook:{0}:seen:DIGEST    when an event was accepted; expires with the duplicate window
    offhook:{0}:awake:crm      the lease of the dispatch that serves the cursor of handler `crm`,
                               or `waking` while one is being called; absent: asleep
    offhook:{0}:parked:crm     hash: lane -> id of the event whose redelivery it waits for
    offhook:{0}:attempts:crm   hash: lane -> attempts made to deliver that event
    offhook:{0}:lane:crm:LANE  list: the stored events of a parked lane, the failed one first
    offhook:{0}:circuit:crm    set while the circuit is open, expires when it is time to probe
    offhook:{0}:failing:crm    how many deliveries have failed in a row; absent: the last was taken
    offhook:{0}:counts:crm     hash: delivered, failed, dead
    offhook:{0}:call:CALL      where the first and the last event of a call are, and its state
    offhook:{0}:calls          sorted set: call -> when it began; all that are kept
    offhook:{0}:live           sorted set: call -> when its last event came; those not yet closed
    offhook:{0}:settling       sorted set: call -> when its settle window ends
    offhook:quarantine         stream: refused callbacks
    offhook:deliveries         channel: what was delivered, published while somebody listens
"""

from offhook.inbox.cursor import Cursor, release_lease
from offhook.inbox.entries import Batch, CursorState, Entry, partition_of
from offhook.inbox.keys import CALL_LOG, QUARANTINE
from offhook.inbox.stream import BLOCK_MS, LEASE_MS, Durability, Inbox

__all__ = [
    "BLOCK_MS",
    "CALL_LOG",
    "LEASE_MS",
    "QUARANTINE",
    "Batch",
    "Cursor",
    "CursorState",
    "Durability",
    "Entry",
    "Inbox",
    "partition_of",
    "release_lease",
]
