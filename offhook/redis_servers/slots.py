"""Which of a cluster's slots a command is for."""

from collections.abc import Iterable, Sequence
from typing import Any

from redis.crc import key_slot

SLOTS = 16_384

Address = tuple[str, int]

# Where a command's first key is, if it is not right behind the command's name. Only these and
# commands without a key need to be known; all that Offhook uses are.
_FIRST_KEY = {"EVAL": 3, "EVALSHA": 3, "BZMPOP": 3}
_WITHOUT_KEYS = frozenset(
    (
        *("ASKING", "BGREWRITEAOF", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "FLUSHALL"),
        *("INFO", "PING", "PUBLISH", "PUBSUB", "SCAN", "SCRIPT", "TIME", "UNWATCH", "WAIT"),
        "WAITAOF",
    )
)
# Commands on several keys that may be made for each of them alone.
SEPARABLE = frozenset(("DEL", "EXISTS", "MGET", "UNLINK"))


def slot_of_key(key: str | bytes) -> int:
    """The slot of a key."""
    return key_slot(key.encode() if isinstance(key, str) else key)


def slot_of(command: Sequence[Any]) -> int | None:
    """The slot that a command is for, by its first key; None if it has none."""
    name: str = command[0]
    if name in _FIRST_KEY:
        at = _FIRST_KEY[name]
        if name != "BZMPOP" and not int(command[2]):
            return None
    elif name == "XREAD":
        at = command.index(b"STREAMS") + 1
    elif name.partition(" ")[0] in _WITHOUT_KEYS:
        return None
    else:
        at = 1
    return slot_of_key(command[at])


def by_slot(keys: Iterable[str | bytes]) -> dict[int, list[int]]:
    """The indices of the keys in each slot."""
    found: dict[int, list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(slot_of_key(key), []).append(index)
    return found


def owners_of(
    answer: Iterable[Sequence[Any]], asked: Address
) -> tuple[list[Address | None], set[Address]]:
    """What a node says about the slots (`CLUSTER SLOTS`).

    Args:
        asked: the node's address, which stands for a host that the cluster leaves open.

    Returns:
        The primary of each slot, and all nodes.
    """
    owners: list[Address | None] = [None] * SLOTS
    nodes: set[Address] = set()
    for first, last, *listed in answer:
        addresses = [_address(node, asked) for node in listed]
        owners[first : last + 1] = addresses[:1] * (last + 1 - first)
        nodes.update(addresses)
    return owners, nodes


def _address(node: Sequence[Any], asked: Address) -> Address:
    host = node[0].decode() if isinstance(node[0], bytes) else node[0]
    return (host if host not in ("", "?", None) else asked[0], int(node[1]))
