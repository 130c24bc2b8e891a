"""The audit log."""

from starlette.requests import Request
from starlette.responses import Response

from offhook.operations.audit import changes
from offhook_console.parts import parts_of
from offhook_console.people import Person

_MOST = 500


async def audit(request: Request, person: Person) -> Response:
    """Show who changed what."""
    parts = parts_of(request)
    entries = await changes(parts.inbox.redis, _MOST)
    return parts.pages.page(request, person, "audit.html", entries=entries)
