"""People: who may sign in, what roles may do, and wall links."""

import secrets
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from offhook.errors import ConfigError
from offhook.operations.audit import note_change
from offhook.operations.wall_links import LONGEST_NAME, WallLink, make_wall_link, revoke_wall_link
from offhook_console.directory import (
    ABILITIES,
    ROLES,
    TenantRow,
    check_tenant,
    tenant_rows,
    tenants_of,
    users_for,
    walls_for,
)
from offhook_console.languages import ENGLISH, gettext, spoken
from offhook_console.moments import midnight_of
from offhook_console.parts import ConsoleParts, parts_of
from offhook_console.people import RIGHTS, Person
from offhook_console.problem_details import ConsoleError
from offhook_console.repeats import first_time


async def people(request: Request, person: Person) -> Response:
    """Show users, roles and wall links."""
    return await _page(request, person)


async def make_wall(request: Request, person: Person) -> Response:
    """Make a wall link, and show its address once."""
    async with request.form(max_files=0, max_fields=5) as form:
        name, tenant, key = (str(form.get(each, "")) for each in ("name", "tenant", "key"))
    if not await first_time(request, person, key):
        return RedirectResponse("/people", 303)
    link, url = await made_wall(request, person, name, tenant or person.tenant)
    return await _page(request, person, link, url)


async def revoke_wall(request: Request, person: Person) -> Response:
    """Revoke a wall link; its screens go dark."""
    async with request.form(max_files=0, max_fields=5) as form:
        tenant = str(form.get("tenant", "")) or person.tenant
    await revoked_wall(request, person, request.path_params["id"], tenant)
    return RedirectResponse("/people", 303)


async def made_wall(
    request: Request, person: Person, name: str, tenant: str
) -> tuple[WallLink, str]:
    """Make a wall link. Return it, and its address.

    Raises:
        ConsoleError: the name cannot be used, or the tenant is not the person's.
    """
    parts = parts_of(request)
    check_tenant(parts, person, tenant)
    redis = parts.inbox.redis
    try:
        link, secret = await make_wall_link(redis, name, person.name, tenant)
    except ConfigError as error:
        raise ConsoleError(409, gettext("No link was made: {why}.", why=error)) from error
    await note_change(redis, person.name, f"made the wall link “{link.name}” ({link.id})")
    origins = parts.settings.console.origins
    base = origins[0] if origins else f"{request.url.scheme}://{request.url.netloc}"
    # A screen has no person to choose a language.
    said = "" if spoken() == ENGLISH else f"?lang={spoken()}"
    return link, f"{base}/wall/{secret}{said}"


async def revoked_wall(request: Request, person: Person, id_: str, tenant: str) -> None:
    """Revoke a wall link.

    Raises:
        ConsoleError: there is no such link that is the person's to revoke.
    """
    parts = parts_of(request)
    check_tenant(parts, person, tenant)
    link = await revoke_wall_link(parts.inbox.redis, id_, tenant)
    if link is None:
        problem = gettext("There is no such wall link; it may have been revoked before.")
        raise ConsoleError(404, problem)
    await parts.walls.look()  # screens of this process go dark now, of others within a second
    did = f"revoked the wall link “{link.name}” ({link.id})"
    await note_change(parts.inbox.redis, person.name, did)


async def _page(
    request: Request, person: Person, made: WallLink | None = None, url: str = ""
) -> Response:
    parts = parts_of(request)
    words = request.query_params.get("q", "")
    return parts.pages.page(
        request,
        person,
        "people.html",
        users=await users_for(parts, person, words),
        words=words,
        abilities=ABILITIES,
        roles=ROLES,
        rights=RIGHTS,
        walls=await walls_for(parts, person),
        tenants=tenants_of(parts, person),
        rows=await _rows(parts, person),
        longest=LONGEST_NAME,
        key=secrets.token_urlsafe(16),
        made=made,
        url=url,
    )


async def _rows(parts: ConsoleParts, person: Person) -> list[TenantRow]:
    if len(tenants_of(parts, person)) == 1:
        return []
    return await tenant_rows(parts, midnight_of(datetime.now(UTC)))
