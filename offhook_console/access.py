"""Routes, each with the right that it needs, and the check of each request.

Every route is made by `console_route`: one without a declared right cannot exist.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from offhook_console.people import Person, Right
from offhook_console.problem_details import ConsoleError, problem
from offhook_console.sessions import Sessions

Endpoint = Callable[[Request, Person], Awaitable[Response]]
PublicEndpoint = Callable[[Request], Awaitable[Response]]

API = "/api/"
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# A cookie with SameSite=Strict does not come with a link from elsewhere; it does after this.
_AGAIN = '<!doctype html><meta http-equiv="refresh" content="0"><title>Offhook</title>'


class ConsoleRoute(Route):
    """A route of the console.

    Attributes:
        right: what a person needs to use it.
        public: whether it needs no person at all.
    """

    right: Right | None = None
    public: bool = False


def console_route(
    path: str, endpoint: Endpoint, right: Right | None, methods: Sequence[str] = ("GET",)
) -> ConsoleRoute:
    """A route for people with a right; None: for everyone who is signed in."""

    async def guarded(request: Request) -> Response:
        sessions: Sessions = request.app.state.parts.sessions
        person = sessions.person(request)
        if person is None:
            return _who_are_you(request)
        if not person.may(right):
            raise ConsoleError(403, f"Your role, {person.role}, does not allow this.")
        if person.token is None:
            check_origin(request)
        return await endpoint(request, person)

    route = ConsoleRoute(path, guarded, methods=list(methods), name=endpoint.__name__)
    route.right = right
    return route


def public_route(
    path: str, endpoint: PublicEndpoint, methods: Sequence[str] = ("GET",)
) -> ConsoleRoute:
    """A route that needs no signing in."""

    async def guarded(request: Request) -> Response:
        check_origin(request)
        return await endpoint(request)

    route = ConsoleRoute(path, guarded, methods=list(methods), name=endpoint.__name__)
    route.public = True
    return route


def check_origin(request: Request) -> None:
    """Check that a request that changes something comes from a page of this console.

    Raises:
        ConsoleError: another site made it, or the browser does not say which.
    """
    if request.method not in _CHANGING:
        return
    origin = request.headers.get("origin")
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise ConsoleError(403, "Another site made this request.")
    if origin is None and "sec-fetch-site" in request.headers:
        return
    allowed: Sequence[str] = request.app.state.parts.settings.console.origins
    if origin is None or (
        origin not in allowed and urlsplit(origin).netloc != request.headers.get("host")
    ):
        raise ConsoleError(
            403,
            "This request does not come from a page of this console. Behind a proxy, pass the "
            "header Host on, or set `origins` in [console].",
        )


def is_api(request: Request) -> bool:
    """Return whether the request is for the API, which answers with JSON."""
    return request.url.path.startswith(API)


def next_page(wanted: Any) -> str:
    """The page to go to after signing in: a path of this console, else the first one."""
    parts = urlsplit(str(wanted or ""))
    if parts.scheme or parts.netloc or not parts.path.startswith("/") or "\\" in str(wanted):
        return "/"
    return parts._replace(fragment="").geturl() if not str(wanted).startswith("//") else "/"


def _who_are_you(request: Request) -> Response:
    if is_api(request):
        return problem(
            401, "Send a token: Authorization: Bearer ofh_...", {"WWW-Authenticate": "Bearer"}
        )
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return HTMLResponse(_AGAIN)
    if request.method != "GET" or "hx-request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": "/sign-in"})
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    to = "/sign-in" if wanted == "/" else f"/sign-in?next={quote(wanted, safe='')}"
    return RedirectResponse(to, 303)
