"""People: who may sign in, what roles may do, and wall links."""

import secrets
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from offhook.operations.wall_links import LONGEST_NAME, WallLink
from offhook_console.directory import (
    ABILITIES,
    ROLES,
    TenantRow,
    tenant_rows,
    tenants_of,
    users_for,
    walls_for,
)
from offhook_console.moments import midnight_of
from offhook_console.parts import ConsoleParts, parts_of
from offhook_console.people import RIGHTS, Person
from offhook_console.repeats import first_time
from offhook_console.wall_actions import made_wall, revoked_wall


async def people(request: Request, person: Person) -> Response:
    """Show users, roles and wall links."""
    return await _page(request, person)


async def make_wall(request: Request, person: Person) -> Response:
    """Make a wall link, and show its address once."""
    async with request.form(max_files=0, max_fields=5) as form:
        name, tenant, key = (str(form.get(each, "")) for each in ("name", "tenant", "key"))
    async with first_time(request, person, key) as first:
        if not first:
            return RedirectResponse("/people", 303)
        link, url = await made_wall(request, person, name, tenant or person.tenant)
    return await _page(request, person, link, url)


async def revoke_wall(request: Request, person: Person) -> Response:
    """Revoke a wall link; its screens go dark."""
    async with request.form(max_files=0, max_fields=5) as form:
        tenant = str(form.get("tenant", "")) or person.tenant
    await revoked_wall(request, person, request.path_params["id"], tenant)
    return RedirectResponse("/people", 303)


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
