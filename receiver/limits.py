"""How much a URL, an address, an extension and a tenant may send, so that none stops the others."""

import time
from collections.abc import Mapping
from typing import Final

from offhook.inbox.refused import Cause
from offhook.settings import TenantLimits, TenantSettings

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
    """What an extension, or a tenant, has recently taken of the inbox and the journal, in bytes.

    Args:
        part: of the inbox or the journal, that it may take.
    """

    __slots__ = ("part", "taken")

    def __init__(self, part: float = 0.1) -> None:
        self.part = part
        self.taken = 0


class TenantUse:
    """What a tenant sends: its rate and its share. The operator has no limits as a whole."""

    __slots__ = ("bucket", "name", "share")

    def __init__(self, name: str, limits: TenantLimits | None) -> None:
        self.name = name
        self.bucket = None if limits is None else Bucket(limits.rate)
        self.share = None if limits is None else Share(limits.share)


class Shares:
    """The shares of all extensions and tenants. They matter only while room is scarce.

    Args:
        tenants: their limits.

    Attributes:
        size: bytes of the store that is getting full; None while there is room.
    """

    def __init__(self, tenants: Mapping[str, TenantSettings]) -> None:
        self.size: float | None = None
        self._shares: dict[tuple[str, str], Share] = {}
        self._tenants = {"": TenantUse("", None)}
        self.limit_tenants(tenants)

    def limit_tenants(self, tenants: Mapping[str, TenantSettings]) -> None:
        """Let these limits hold; what a tenant has taken counts on."""
        before = self._tenants
        self._tenants = {"": before[""]}
        for name, each in tenants.items():
            use = self._tenants[name] = TenantUse(name, each.limits)
            known = before.get(name)
            if use.share is not None and known is not None and known.share is not None:
                use.share.taken = known.share.taken

    def of(self, pbx: str, extension: str) -> Share:
        """Return the share of an extension whose URL is verified."""
        return self._shares.setdefault((pbx, extension), Share())

    def of_tenant(self, name: str) -> TenantUse:
        """Return what a tenant sends."""
        return self._tenants[name]

    def take(self, url: "KnownUrl", size: int) -> Cause | None:
        """Take room for an event with parameters of this size; or return why there is none."""
        shares = ((url.share, Cause.SHARE), (url.tenant.share, Cause.TENANT_SHARE))
        if self.size is not None:
            for share, cause in shares:
                if share is not None and share.taken >= self.size * share.part:
                    return cause
        for share, _ in shares:
            if share is not None:
                share.taken += _COST + size
        return None

    def halve(self) -> None:
        """Forget the older half of what was taken."""
        of_tenants = [each.share for each in self._tenants.values() if each.share is not None]
        for share in (*self._shares.values(), *of_tenants):
            share.taken //= 2


class KnownUrl:
    """A callback URL with a valid token, as long as it is cached."""

    __slots__ = ("bucket", "event_type", "extension", "pbx", "share", "tenant")

    def __init__(
        self,
        pbx: str,
        extension: str,
        event_type: str,
        rate: float,
        share: Share,
        tenant: TenantUse,
    ) -> None:
        self.pbx = pbx
        self.extension = extension
        self.event_type = event_type
        self.bucket = Bucket(rate)
        self.share = share
        self.tenant = tenant
