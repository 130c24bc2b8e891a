"""Routes, each with the right that it needs, and the check of each request.

Every route is made by `console_route`: one without a declared right cannot exist.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from offhook_console.languages import gettext
from offhook_console.people import Person, Right
from offhook_console.problem_details import ConsoleError, problem
from offhook_console.sessions import Sessions

Endpoint = Callable[[Request, Person], Awaitable[Response]]
SocketEndpoint = Callable[[WebSocket, Person], Awaitable[None]]
PublicEndpoint = Callable[[Request], Awaitable[Response]]

API = "/api/"
_SUBPROTOCOL = "offhook"
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_PATH = re.compile(r"/(?!/)[^\\]*")
_IGNORED = re.compile(r"[\t\n\r]")  # by browsers, anywhere in a URL
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
            raise ConsoleError(
                403, gettext("Your role, {role}, does not allow this.", role=person.role)
            )
        if person.token is None:
            check_origin(request)
        request.app.state.parts.seen.note(person.tenant, f"user {person.name}")
        return await endpoint(request, person)

    route = ConsoleRoute(path, guarded, methods=list(methods), name=endpoint.__name__)
    route.right = right
    return route


class ConsoleSocket(WebSocketRoute):
    """A WebSocket of the console.

    Attributes:
        right: what a person needs to open it.
    """

    right: Right


def console_socket(path: str, endpoint: SocketEndpoint, right: Right) -> ConsoleSocket:
    """A WebSocket for people with a right.

    A page of another site cannot set headers, so it sends a token as the second subprotocol, after
    `offhook`. With a cookie instead, only a page of this console may open it.
    """

    async def guarded(socket: WebSocket) -> None:
        offered = socket.scope["subprotocols"]
        named = len(offered) == 2 and offered[0] == _SUBPROTOCOL
        sessions: Sessions = socket.app.state.parts.sessions
        person = sessions.of_token(f"Bearer {offered[1]}") if named else sessions.person(socket)
        foreign = person is not None and person.token is None and not _is_same_origin(socket)
        if person is None or not person.may(right) or foreign:
            await socket.close(1008)  # answered 403
            return
        socket.app.state.parts.seen.note(person.tenant, f"user {person.name}")
        await socket.accept(_SUBPROTOCOL if named else None)
        await endpoint(socket, person)

    route = ConsoleSocket(path, guarded, name=endpoint.__name__)
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
        raise ConsoleError(403, gettext("Another site made this request."))
    if origin is None and "sec-fetch-site" in request.headers:
        return
    if not _is_same_origin(request):
        raise ConsoleError(
            403,
            gettext(
                "This request does not come from a page of this console. Behind a proxy, pass the "
                "header Host on, or set `origins` in [console]."
            ),
        )


def _is_same_origin(connection: HTTPConnection) -> bool:
    """Return whether the header Origin is there, and names this console."""
    origin = connection.headers.get("origin")
    allowed: Sequence[str] = connection.app.state.parts.settings.console.origins
    return origin is not None and (
        origin in allowed or origin.partition("://")[2] == connection.headers.get("host")
    )


def is_api(request: Request) -> bool:
    """Return whether the request is for the API, which answers with JSON."""
    return request.url.path.startswith(API)


def next_page(wanted: Any) -> str:
    """The page to go to after signing in: a path of this console, else the first one."""
    said = _IGNORED.sub("", str(wanted))
    return urlsplit(said)._replace(fragment="").geturl() if _PATH.fullmatch(said) else "/"


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
