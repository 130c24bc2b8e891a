"""How much one URL, one address and one extension may send, so that none stops the others."""

import time
from typing import Final

BURST: Final = 30.0  # seconds' worth of the rate that may come at once
_COST = 500  # bytes that an event takes beside its parameters


class Bucket:
    """A token bucket: one allowance each `1 / rate` seconds, saved up for `BURST` seconds."""

    __slots__ = ("_every", "_next")

    def __init__(self, rate: float) -> None:
        self._every = 1 / rate
        self._next = 0.0  # when the bucket is full again

    def take(self) -> bool:
        """Take one, if there is any."""
        now = time.monotonic()
        if self._next < now:
            self._next = now + self._every
        elif self._next > now + BURST:
            return False
        else:
            self._next += self._every
        return True

    @property
    def full(self) -> bool:
        return self._next <= time.monotonic()


class Share:
    """What one extension has recently taken of the inbox and the journal, in bytes."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = 0


class Shares:
    """The shares of all extensions. They matter only while room is scarce.

    Attributes:
        limit: bytes that one extension may have taken; None while there is room.
    """

    def __init__(self) -> None:
        self.limit: float | None = None
        self._shares: dict[tuple[str, str], Share] = {}

    def of(self, pbx: str, extension: str) -> Share:
        """Return the share of an extension whose URL is verified."""
        return self._shares.setdefault((pbx, extension), Share())

    def take(self, share: Share, size: int) -> bool:
        """Return whether an event with parameters of this size fits into the share, and take it."""
        if self.limit is not None and share.taken >= self.limit:
            return False
        share.taken += _COST + size
        return True

    def halve(self) -> None:
        """Forget the older half of what was taken."""
        for share in self._shares.values():
            share.taken //= 2


class KnownUrl:
    """A callback URL with a valid token, as long as it is cached."""

    __slots__ = ("bucket", "event_type", "extension", "pbx", "share", "tenant")

    def __init__(
        self, pbx: str, extension: str, event_type: str, rate: float, share: Share, tenant: str = ""
    ) -> None:
        self.pbx = pbx
        self.extension = extension
        self.event_type = event_type
        self.bucket = Bucket(rate)
        self.share = share
        self.tenant = tenant
