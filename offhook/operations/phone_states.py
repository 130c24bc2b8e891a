"""Whether the phones of an extension are registered, as `watch_phones` last saw it."""

from datetime import datetime
from typing import Any

import msgspec
from redis.asyncio import Redis

from offhook.inbox import keys


class RegistrationState(msgspec.Struct, frozen=True, array_like=True):
    """What is known of an extension's phones.

    Attributes:
        registered: as last announced, or at the first check.
        changed: when the last check found the opposite, or None if it did not.
    """

    registered: bool
    changed: datetime | None = None


_decode = msgspec.json.Decoder(RegistrationState).decode


async def phone_states(redis: Redis, pbx: str, access: str = "") -> dict[str, RegistrationState]:
    """The state of each extension of a PBX that was set up, by its number.

    Args:
        access: the tenant whose access to the PBX's API finds them; empty: the operator's.
    """
    stored: Any = await redis.hgetall(keys.phones(pbx, access))
    return {name.decode(): _decode(value) for name, value in sorted(stored.items())}
