"""Wall links: each shows the wallboard on one screen, without a user. Redis has only hashes."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis.asyncio import Redis

from offhook.errors import ConfigError
from offhook.inbox import keys

MOST = 200  # links of a tenant
LONGEST_NAME = 60  # characters
_UNNAMED = "Screen"


class WallLink(msgspec.Struct, frozen=True, kw_only=True):
    """A wall link.

    Attributes:
        id: of the link, for revoking it. It does not open the wallboard.
        name: of the screen.
        by: the user who made it.
        made: when, UTC.
        seen: when a screen last showed it, UTC; None: it never did.
    """

    id: str
    name: str
    by: str
    made: datetime
    seen: datetime | None = None


@dataclass(frozen=True)
class FoundLink:
    """A link that opens the wallboard.

    Attributes:
        field: of `keys.wall_links(tenant)`.
    """

    link: WallLink
    tenant: str
    field: str


async def make_wall_link(
    redis: Redis, name: str, by: str, tenant: str = ""
) -> tuple[WallLink, str]:
    """Make a link. Return it, and the secret at the end of its address, which is not kept.

    Args:
        name: of the screen.

    Raises:
        ConfigError: the name cannot be used, or there are too many links.
    """
    name = " ".join("".join(each if each.isprintable() else " " for each in name).split())
    if len(name) > LONGEST_NAME:
        raise ConfigError(f"the name of a screen has at most {LONGEST_NAME} characters")
    if await redis.hlen(keys.wall_links(tenant)) >= MOST:
        raise ConfigError(f"there are {MOST} wall links: revoke some")
    # The tenant says where to look; the rest proves that the link is known.
    secret = f"{tenant}.{secrets.token_urlsafe(32)}" if tenant else secrets.token_urlsafe(32)
    field = _field(secret)
    link = WallLink(id=_id(field), name=name or _UNNAMED, by=by, made=datetime.now(UTC))
    await redis.hset(keys.wall_links(tenant), field, msgspec.json.encode(link))
    return link, secret


async def find_wall_link(redis: Redis, secret: str) -> FoundLink | None:
    """Return the link that a secret opens; None if there is none, or it was revoked."""
    tenant = secret.rpartition(".")[0]
    field = _field(secret)
    stored: Any = await redis.hget(keys.wall_links(tenant), field)
    return None if stored is None else FoundLink(_read(stored), tenant, field)


async def wall_links(redis: Redis, tenant: str = "") -> list[WallLink]:
    """The links of a tenant, newest first, with when each was seen."""
    stored: Any = await redis.hvals(keys.wall_links(tenant))
    links = [_read(each) for each in stored]
    seen: Any = await redis.hgetall(keys.last_seen(tenant))
    found = [
        msgspec.structs.replace(each, seen=datetime.fromtimestamp(int(at) / 1000, UTC))
        if (at := seen.get(f"wall {each.id}".encode())) is not None
        else each
        for each in links
    ]
    return sorted(found, key=lambda each: each.made, reverse=True)


async def still_there(redis: Redis, tenant: str, fields: list[str]) -> list[bool]:
    """Return of each link, by its field, whether it still opens the wallboard."""
    found: Any = await redis.hmget(keys.wall_links(tenant), fields)
    return [each is not None for each in found]


async def revoke_wall_link(redis: Redis, id_: str, tenant: str = "") -> WallLink | None:
    """Revoke a link. Return it; None if there is none with this id."""
    stored: Any = await redis.hgetall(keys.wall_links(tenant))
    for field, value in stored.items():
        if _id(field.decode()) == id_:
            await redis.hdel(keys.wall_links(tenant), field)
            await redis.hdel(keys.last_seen(tenant), f"wall {id_}")
            return _read(value)
    return None


def _read(stored: bytes) -> WallLink:
    return msgspec.json.decode(stored, type=WallLink)


def _field(secret: str) -> str:
    # 256 random bits need no slow hash.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _id(field: str) -> str:
    return field[:12]
