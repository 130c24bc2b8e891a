"""What a person does to a handler from its page: pause, resume, send a test event."""

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from offhook_console.handler_actions import change_pause, configured, try_handler
from offhook_console.parts import parts_of
from offhook_console.people import Person


async def pause(request: Request, person: Person) -> Response:
    """Pause a handler; its page then offers to undo that."""
    parts = parts_of(request)
    name, _ = configured(parts, request.path_params["name"])
    await change_pause(parts, person, name, paused=True)
    return RedirectResponse(f"/handlers/{name}?did=paused", 303)


async def resume(request: Request, person: Person) -> Response:
    """Resume a handler."""
    parts = parts_of(request)
    name, _ = configured(parts, request.path_params["name"])
    await change_pause(parts, person, name, paused=False)
    return RedirectResponse(f"/handlers/{name}?did=resumed", 303)


async def send_test(request: Request, person: Person) -> Response:
    """Send a test event; the page shows what becomes of it."""
    parts = parts_of(request)
    async with request.form(max_files=0, max_fields=5) as form:
        kind = str(form.get("event", ""))
    name, _ = configured(parts, request.path_params["name"])
    event = await try_handler(parts, person, name, kind)
    return RedirectResponse(f"/handlers/{name}?{urlencode({'test': event.call})}", 303)
