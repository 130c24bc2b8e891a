"""The keys of the inbox, and the places in a stream. What each key holds: see `offhook.inbox`."""

from datetime import datetime

QUARANTINE = "offhook:quarantine"
DELIVERIES = "offhook:deliveries"
CALL_LOG = "calls"  # the cursor from which calls are put together; no handler has this name


def key(partition: int, *names: str) -> str:
    """A key of one partition. Those of a partition share a hash tag."""
    return f"offhook:{{{partition}}}:{':'.join(names)}"


def order_of(position: bytes | str) -> tuple[int, int]:
    """A place in a stream, as numbers that compare."""
    text = position.decode() if isinstance(position, bytes) else position
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number)


def position_at(moment: datetime) -> str:
    """The first place in a stream at or after a moment."""
    return f"{max(0, int(moment.timestamp() * 1000))}-0"


def position_before(position: str) -> str:
    """The last place before this one."""
    milliseconds, number = order_of(position)
    if number:
        return f"{milliseconds}-{number - 1}"
    return f"{milliseconds - 1}-{2**64 - 1}" if milliseconds else "0-0"
