"""The users, roles and tenants of the configuration, as the People page and the API show them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from offhook.inbox import Inbox, keys
from offhook.operations.wall_links import WallLink, wall_links
from offhook.settings import Role, Scope
from offhook_console.languages import N_, gettext
from offhook_console.parts import ConsoleParts
from offhook_console.people import RIGHTS, Person, Right
from offhook_console.problem_details import ConsoleError

_MOST = 500  # users, and tenants
# What roles may do, in words (messages), and the right that it needs.
ABILITIES: Sequence[tuple[str, Right]] = (
    (N_("see calls and figures"), Right.CALLS),
    (N_("see calls of all extensions"), Right.ALL_CALLS),
    (N_("see numbers in full"), Right.NUMBERS),
    (N_("get screen pops for their own extensions"), Right.LIVE),
    (N_("call from their own extensions"), Right.DIAL),
    (N_("see users; make and revoke wall links"), Right.PEOPLE),
    (N_("see handlers, dead letters and the quarantine"), Right.DELIVERIES),
    (N_("replay, retry, discard, deliver; see the audit log"), Right.REPAIR),
)
ROLES = tuple(RIGHTS)


class UserToken(msgspec.Struct, frozen=True):
    """A token of a user: its name and scopes."""

    name: str
    scopes: list[Scope]


class ListedUser(msgspec.Struct, frozen=True, kw_only=True):
    """A user of the console.

    Attributes:
        tenant: whose calls the user sees; empty: the operator's.
        extensions: the user's own.
        seen: when a request of the user last came, UTC; null: not since the console notes it.
    """

    name: str
    role: Role
    tenant: str
    extensions: list[str]
    tokens: list[UserToken]
    seen: datetime | None


@dataclass(frozen=True)
class TenantRow:
    """A tenant in the operator's list."""

    name: str
    extensions: Sequence[str]
    people: int
    handlers: int
    calls_today: int


def tenants_of(parts: ConsoleParts, person: Person) -> list[str]:
    """The tenants whose people and walls a person may see: operators see those of all."""
    if person.role == "operator" and not person.tenant:
        return ["", *sorted(parts.settings.tenants)]
    return [person.tenant]


def check_tenant(parts: ConsoleParts, person: Person, tenant: str) -> None:
    """Check that a person may change what is a tenant's.

    Raises:
        ConsoleError: there is no such tenant for this person.
    """
    if tenant not in tenants_of(parts, person):
        raise ConsoleError(404, gettext("There is no such tenant."))


async def users_for(parts: ConsoleParts, person: Person, words: str = "") -> list[ListedUser]:
    """The users that a person may see, by name.

    Args:
        words: a part of the name.
    """
    tenants = set(tenants_of(parts, person))
    found = {
        name: user
        for name, user in sorted(parts.settings.console.users.items())
        if user.tenant in tenants and words.casefold() in name.casefold()
    }
    shown = dict(list(found.items())[:_MOST])
    seen = {each: await parts.seen.all(each) for each in {user.tenant for user in shown.values()}}
    return [
        ListedUser(
            name=name,
            role=user.role,
            tenant=user.tenant,
            extensions=user.extensions,
            tokens=[UserToken(label, sorted(t.scopes)) for label, t in user.tokens.items()],
            seen=seen[user.tenant].get(f"user {name}"),
        )
        for name, user in shown.items()
    ]


async def walls_for(parts: ConsoleParts, person: Person) -> list[tuple[str, WallLink]]:
    """The wall links that a person may revoke, each with its tenant."""
    await parts.seen.write()
    redis = parts.inbox.redis
    return [
        (tenant, link)
        for tenant in tenants_of(parts, person)[:_MOST]
        for link in await wall_links(redis, tenant)
    ]


async def tenant_rows(parts: ConsoleParts, midnight: datetime) -> list[TenantRow]:
    """The tenants, as operators see them."""
    settings = parts.settings
    names = sorted(settings.tenants)[:_MOST]
    calls = await _calls_since(parts.inbox, names, midnight)
    people = [user.tenant for user in settings.console.users.values()]
    return [
        TenantRow(
            name,
            settings.tenants[name].extensions,
            people.count(name),
            len(settings.tenants[name].handlers),
            calls[name],
        )
        for name in names
    ]


async def _calls_since(inbox: Inbox, tenants: Collection[str], since: datetime) -> dict[str, int]:
    async with inbox.redis.pipeline(transaction=False) as pipeline:
        for tenant in tenants:
            for partition in range(inbox.partitions):
                pipeline.zcount(
                    keys.calls(partition, tenant), int(since.timestamp() * 1000), "+inf"
                )
        counts = await pipeline.execute()
    each = inbox.partitions
    return {name: sum(counts[n * each : (n + 1) * each]) for n, name in enumerate(tenants)}
