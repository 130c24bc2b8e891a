"""Signing in and out."""

import logging

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from offhook_console.access import next_page
from offhook_console.languages import gettext, ngettext
from offhook_console.parts import parts_of
from offhook_console.people import Person
from offhook_console.problem_details import ConsoleError
from offhook_console.single_sign_on import SignInRefused, SingleSignOn

log = logging.getLogger("offhook.console")


async def sign_in(request: Request) -> Response:
    """Show the form, or sign in."""
    parts = parts_of(request)
    if request.method == "GET":
        if parts.sessions.person(request) is not None:
            return RedirectResponse(next_page(request.query_params.get("next")), 303)
        return _form(request, request.query_params.get("next", "/"))
    async with request.form(max_files=0, max_fields=10) as form:
        name, password, to = (str(form.get(each, "")) for each in ("name", "password", "next"))
    address = request.client.host if request.client else "?"
    if not await parts.limit.attempt(name, address):
        log.warning("too many attempts to sign in from %s", address)
        error = gettext("Too many tries. Wait for 15 minutes, then try again.")
        return _form(request, to, name, error, 429)
    user = parts.settings.console.users.get(name)
    hashed = user.password.get_secret_value() if user else None
    if not await parts.passwords.fits(hashed, password):
        log.warning("a wrong name or password from %s", address)
        left = await parts.limit.left(name, address)
        error = (
            ngettext(
                "That name and password do not go together. {number} more try, then wait for 15 "
                "minutes.",
                "That name and password do not go together. {number} more tries, then wait for 15 "
                "minutes.",
                left,
            )
            if left
            else gettext("That name and password do not go together. Wait for 15 minutes.")
        )
        return _form(request, to, name, error, 401)
    await parts.limit.succeeded(name, address)
    log.info("%s signed in from %s", name, address)
    response = RedirectResponse(next_page(to), 303)
    parts.sessions.start(request, response, name)
    return response


async def begin_oidc(request: Request) -> Response:
    """Go to the OpenID provider."""
    to = next_page(request.query_params.get("next"))
    try:
        return await _provider(request).begin(request, to)
    except SignInRefused as error:
        log.warning("the OpenID provider: %s", error)
        return _form(request, to, error=error.shown, status=502)


async def finish_oidc(request: Request) -> Response:
    """Come back from the OpenID provider."""
    parts, provider = parts_of(request), _provider(request)
    try:
        who, to = await provider.finish(request)
    except SignInRefused as error:
        address = request.client.host if request.client else "?"
        log.warning("refused a single sign-on from %s: %s", address, error)
        refused = _form(
            request,
            "/",
            error=gettext("You were not signed in. {why}", why=error.shown),
            status=403,
        )
        provider.forget(refused)
        return refused
    log.info("%s signed in by single sign-on", who.name)
    response = RedirectResponse(next_page(to), 303)
    provider.forget(response)
    parts.sessions.start(request, response, who)
    return response


def _provider(request: Request) -> SingleSignOn:
    provider = parts_of(request).sessions.single_sign_on
    if provider is None:
        raise ConsoleError(404, gettext("There is no single sign-on here."))
    return provider


async def sign_out(request: Request, person: Person) -> Response:
    """End the session."""
    response = RedirectResponse("/sign-in", 303)
    parts_of(request).sessions.end(request, response)
    # What the browser has kept of this console goes, too.
    response.headers["Clear-Site-Data"] = '"cache"'
    # Other tabs connect again once the cookie is gone, and go to this page.
    response.background = BackgroundTask(parts_of(request).streams.end, person)
    return response


async def start(request: Request, person: Person) -> Response:
    """Go to the first page."""
    return RedirectResponse("/now", 303)


def _form(
    request: Request, to: str, name: str = "", error: str = "", status: int = 200
) -> Response:
    parts = parts_of(request)
    theme = request.cookies.get("theme")
    html = parts.pages.html(
        "sign_in.html",
        theme=theme if theme in ("light", "dark") else None,
        next=next_page(to),
        name=name,
        error=error,
        users=bool(parts.settings.console.users),
        single_sign_on=oidc.label if (oidc := parts.settings.console.oidc) else None,
    )
    return Response(html, status, media_type="text/html")
