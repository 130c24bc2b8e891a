"""Dial: ask the PBX to call one's own phone, and then a number. Also for `tel:` links."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from offhook_console.access import next_page
from offhook_console.dialling import PER_MINUTE, dialled, number_of_missed, own_extension
from offhook_console.parts import parts_of
from offhook_console.people import Person
from offhook_console.wording import shown_number
from offhook_console.worklist_query import find_missed


async def dial(request: Request, person: Person) -> Response:
    """Show what would be called. A link must not call by itself, so this asks first."""
    parts = parts_of(request)
    given = request.query_params.get("number", "")
    number = dialled(given) if given.strip() else ""
    labels = parts.feed_of(person).labels
    names = {extension: each.label for (_, extension), each in labels.items()}
    return parts.pages.page(
        request,
        person,
        "dial.html",
        dialled=number,
        shown=shown_number(number, masked=False) if number else "",
        phones=[(each, names.get(each)) for each in sorted(person.extensions)],
        called=request.query_params.get("called") == "yes",
        per_minute=PER_MINUTE,
    )


async def make_call(request: Request, person: Person) -> Response:
    """Call a number, or a missed caller, and go back to the page that asked for it."""
    parts = parts_of(request)
    async with request.form(max_files=0, max_fields=5) as form:
        given = {name: str(value) for name, value in form.items()}
    if given.get("missed"):
        waiting = await find_missed(parts, person, "open")
        number = number_of_missed(waiting, given["missed"])
    else:
        number = dialled(given.get("number", ""))
    feed, extension = parts.feed_of(person), given.get("extension") or own_extension(person)
    await parts.dialling.dial(feed, person, number, extension)
    return RedirectResponse(next_page(given.get("next") or "/dial?called=yes"), 303)
