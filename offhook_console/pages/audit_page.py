"""The audit log."""

from starlette.requests import Request
from starlette.responses import Response

from offhook.operations.audit import changes
from offhook_console.directory import check_tenant, tenants_of
from offhook_console.parts import parts_of
from offhook_console.people import Person

_MOST = 500


async def audit(request: Request, person: Person) -> Response:
    """Show who changed what."""
    parts, tenant = parts_of(request), request.query_params.get("tenant", "")
    check_tenant(parts, person, tenant)
    return parts.pages.page(
        request,
        person,
        "audit.html",
        entries=await changes(parts.inbox.redis, _MOST, tenant),
        tenant=tenant,
        tenants=tenants_of(parts, person),
    )
