"""Extensions: is each registered on the PBX as it should be; compare them, set them up."""

from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from offhook.call import Kind
from offhook_console.extension_query import find_extensions, read_setup
from offhook_console.parts import parts_of
from offhook_console.people import Person

_PAGE = 100
_PLANNED = 20  # extensions whose plan is shown


async def extensions(request: Request, person: Person) -> Response:
    """Show the extensions that match the filters in the URL."""
    parts = parts_of(request)
    given = request.query_params
    query = {name: given.get(name, "") for name in ("drift", "phone", "q")}
    plans = await parts.setup.drift()
    found = await find_extensions(parts, query, plans)
    first = _place(given.get("from"))
    said = {name: value for name, value in query.items() if value}
    last_run, runs = await parts.setup.state()
    mine = {name: each for name, each in plans.items() if parts.setup.owns(name)}
    return parts.pages.page(
        request,
        person,
        "extensions.html",
        query=query,
        rows=found.rows[first : first + _PAGE],
        found=found,
        matching=len(found.rows),
        first=first + 1,
        plans=list(mine.items())[:_PLANNED],
        more_plans=max(0, len(mine) - _PLANNED),
        last_run=last_run,
        runs=runs,
        pbxs=list(parts.settings.pbx),
        kinds=list(Kind),
        urls={
            "all": _url({**said, "drift": "", "phone": ""}),
            "drift": _url({**said, "drift": "yes", "phone": ""}),
            "gone": _url({**said, "phone": "gone", "drift": ""}),
        },
        newer=_url({**said, "from": str(max(0, first - _PAGE))}) if first else None,
        older=_url({**said, "from": str(first + _PAGE)})
        if first + _PAGE < len(found.rows)
        else None,
    )


async def run(request: Request, person: Person) -> Response:
    """How far the run is: a fragment that the page asks for; reloads the page once it has ended."""
    parts = parts_of(request)
    last_run, runs = await parts.setup.state()
    html = parts.pages.macro("extension_run.html", "run_section", last_run, runs)
    return HTMLResponse(html, headers={} if runs else {"HX-Refresh": "true"})


async def compare(request: Request, person: Person) -> Response:
    """Compare all extensions with the PBX, in the background."""
    await parts_of(request).setup.start_comparison(person.name)
    return RedirectResponse("/extensions", 303)


async def plan(request: Request, person: Person) -> Response:
    """Show what setting some extensions up would do."""
    parts = parts_of(request)
    asked = await read_setup(parts, request.query_params)
    pbx, given = asked
    plans, wrong = await parts.setup.plan(pbx, given)
    return parts.pages.page(
        request,
        person,
        "extension_plan.html",
        pbx=pbx,
        plans=plans,
        wrong=wrong,
        said={
            name: request.query_params.get(name, "")
            for name in ("extensions", "pbx", "label", "kind")
        },
    )


async def set_up(request: Request, person: Person) -> Response:
    """Set extensions up in the background: those named, or all that differ."""
    parts = parts_of(request)
    async with request.form(max_files=0, max_fields=10) as form:
        fields = {name: str(value) for name, value in form.items()}
    if fields.get("extensions"):
        pbx, given = await read_setup(parts, fields)
        named = {(pbx, number): each for number, each in given.items()}
        await parts.setup.start_setup(person.name, named)
    else:
        await parts.setup.start_setup(person.name)
    return RedirectResponse("/extensions", 303)


def _place(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 9 else 0


def _url(query: Mapping[str, str]) -> str:
    said = {name: value for name, value in query.items() if value}
    return f"/extensions?{urlencode(said)}" if said else "/extensions"
