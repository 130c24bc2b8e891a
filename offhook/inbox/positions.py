"""Positions: places in a partition's stream, as Redis writes them (`MILLISECONDS-NUMBER`)."""

from datetime import datetime

START = b"0-0"  # the position before the first event


def order_of(position: bytes | str) -> tuple[int, int]:
    """The position as numbers that compare."""
    text = position.decode() if isinstance(position, bytes) else position
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number)


def position_at(moment: datetime) -> str:
    """The first position at or after a moment."""
    return f"{max(0, int(moment.timestamp() * 1000))}-0"


def position_before(position: str) -> str:
    """The last position before this one."""
    milliseconds, number = order_of(position)
    if number:
        return f"{milliseconds}-{number - 1}"
    return f"{milliseconds - 1}-{2**64 - 1}" if milliseconds else "0-0"
