"""Quarantine: refused callbacks: look at them, deliver or discard one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from offhook.inbox import quarantine as refused_callbacks
from offhook_console.languages import N_, gettext
from offhook_console.parts import parts_of
from offhook_console.people import Person
from offhook_console.problem_details import ConsoleError
from offhook_console.quarantine_actions import deliver_refused, discard_refused

_PAGE = 200
_OWN = ("method", "pbx", "extension", "event_type", "message", "received")
_LABELS = {
    "code": N_("Code"),
    "query": N_("Query"),
    "body": N_("Body"),
    "content_type": N_("Content type"),
    "cut": N_("Cut off"),
    "event": N_("Event"),
}
# Of a state: delivered, or still refused. The text of a notice comes from here, not from the URL.
_NOTICES = {
    "delivered": ("ok", N_("The callback was delivered: its event is in the inbox.")),
    "repeat": ("ok", N_("The callback was a repeat of one that was delivered before.")),
    "refused": ("ring", N_("The callback is still refused: see what is wrong with it.")),
    "discarded": ("ok", N_("The callback was discarded.")),
}


@dataclass(frozen=True)
class RefusedView:
    """A refused callback, as shown.

    Attributes:
        rest: what else is known of it, each with its label, in English.
    """

    id: str
    method: str
    pbx: str
    extension: str
    event_type: str
    message: str
    received: datetime
    rest: list[tuple[str, str]]


async def quarantine(request: Request, person: Person) -> Response:
    """Show the refused callbacks, and one of them."""
    parts = parts_of(request)
    kept = await refused_callbacks.kept(parts.inbox.redis, most=_PAGE)
    shown = [view_refused(key, refused) for key, refused in kept]
    wanted = request.query_params.get("id")
    notice = _NOTICES.get(request.query_params.get("did", ""))
    return parts.pages.page(
        request,
        person,
        "quarantine.html",
        refused=shown,
        total=await refused_callbacks.length(parts.inbox.redis),
        chosen=next((each for each in shown if each.id == wanted), shown[0] if shown else None),
        notices=[notice] if notice else [],
        days=f"{parts.settings.quarantine_days:g}",
        most=parts.settings.quarantine_size,
    )


async def change_quarantine(request: Request, person: Person) -> Response:
    """Deliver or discard one refused callback."""
    parts = parts_of(request)
    async with request.form(max_files=0, max_fields=5) as form:
        key, kind = str(form.get("id", "")), form.get("kind")
    if kind == "discard":
        await discard_refused(parts, person, key)
        did = "discarded"
    elif kind == "deliver":
        did, _ = await deliver_refused(parts, person, key)
    else:
        raise ConsoleError(400, gettext("kind: must be deliver or discard."))
    stays = {"id": key} if did == "refused" else {}
    return RedirectResponse(f"/quarantine?{urlencode({**stays, 'did': did})}", 303)


def view_refused(key: str, refused: Mapping[str, bytes]) -> RefusedView:
    """A refused callback, readable, without its token."""
    texts = {name: value.decode("utf-8", "replace") for name, value in refused.items()}
    rest = [(name, value) for name, value in texts.items() if value and name not in _OWN]
    return RefusedView(
        id=key,
        method=texts.get("method", "?"),
        pbx=texts.get("pbx", "?"),
        extension=texts.get("extension", "?"),
        event_type=texts.get("event_type", "?"),
        message=texts.get("message", ""),
        received=datetime.fromisoformat(texts["received"]),
        rest=[(_LABELS.get(name, name), value) for name, value in rest],
    )
