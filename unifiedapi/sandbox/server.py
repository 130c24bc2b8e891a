"""The sandbox PBX's API as a Starlette app: paths, tokens, JSON and errors.

    app = create_sandbox(Store.example())

Sources: VoipNow wiki, Getting Started, Authentication, Obtain Authorization and HTTP Return Codes;
RFC 6749 for the errors of the token endpoint.
"""

import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import URLPath
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, NoMatchFound, Route
from starlette.types import Lifespan, Receive, Scope, Send

from unifiedapi.sandbox.openapi import describe
from unifiedapi.sandbox.refusal import Refused
from unifiedapi.sandbox.services import answer
from unifiedapi.sandbox.services.api_request import ApiRequest
from unifiedapi.sandbox.store import Store, User

MAX_BODY = 65536  # bytes; not documented


def create_sandbox(
    store: Store,
    *,
    numbers: bool = False,
    wrapped: bool = False,
    routes: Sequence[BaseRoute] = (),
    lifespan: Lifespan[Starlette] | None = None,
) -> Starlette:
    """Create the API of a simulated PBX.

    Args:
        store: the contents; the thread that runs the app may change them.
        numbers: respond with numbers where the documents' samples have strings: 0, not "0".
        wrapped: put every object and collection into an array, as v5's samples do.
        routes: additional routes, such as the control endpoint.
    """
    description = describe(store, numbers=numbers, wrapped=wrapped)

    async def openapi(request: Request) -> Response:
        return _json(200, description)

    app = Starlette(
        routes=[
            _Uapi(store, numbers=numbers, wrapped=wrapped),
            Route("/oauth/token.php", _TokenEndpoint(store)),
            Route("/openapi.json", openapi),
            *routes,
        ],
        exception_handlers={HTTPException: _http_error, Exception: _server_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # 4PSA's own client does not follow them
    app.state.store = store
    return app


def example() -> Starlette:
    """Create the example PBX, for `uvicorn --factory`."""
    return create_sandbox(Store.example())


class _Uapi(BaseRoute):
    """Everything under `/uapi`. A custom route, because Starlette's do not match `%0A`."""

    def __init__(self, store: Store, *, numbers: bool, wrapped: bool) -> None:
        self._store = store
        self._numbers = numbers
        self._wrapped = wrapped

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        ours = scope["type"] == "http" and f"{scope['path']}/".startswith("/uapi/")
        return (Match.FULL if ours else Match.NONE), {}

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            data = answer(self._store, await self._read(request))
            response = self._response(data)
        except Refused as refusal:
            response = _json(refusal.status, refusal.body)
            if refusal.status == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
        await response(scope, receive, send)

    async def _read(self, request: Request) -> ApiRequest:
        query = _pairs(request.scope["query_string"])
        user = _authenticate(self._store, request, query)
        body = await _body(request)
        if body is None:
            raise Refused("request_invalid")
        raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
        path = raw.decode("latin-1").removeprefix("/uapi").strip("/").split("/")
        return ApiRequest(
            user=user,
            method=request.method,
            path=[unquote(segment) for segment in path],
            query=query,
            body=body,
            base=f"{request.url.scheme}://{request.url.netloc}/uapi",
            numbers=self._numbers,
        )

    def _response(self, data: Any) -> Response:
        if data is None:
            return Response(status_code=204)
        return _json(200, [data] if self._wrapped and not isinstance(data, list) else data)


class _TokenEndpoint:
    """`/oauth/token.php`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive))
        response.headers["Cache-Control"] = "no-store"
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method != "POST":
            return _oauth_error(
                405, "invalid_request", "The method must be POST.", {"Allow": "POST"}
            )
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        body = await _body(request)
        if kind != "application/x-www-form-urlencoded" or body is None:
            return _oauth_error(400, "invalid_request", "The body must be a form.")
        form = dict(_pairs(body))
        grant = form.get("grant_type", "")
        if not grant or not form.get("client_id") or not form.get("client_secret"):
            message = "grant_type, client_id and client_secret are required."
            return _oauth_error(400, "invalid_request", message)
        if form.get("type", "unifiedapi") != "unifiedapi":
            return _oauth_error(400, "invalid_request", "The type must be unifiedapi.")
        app = self._store.app(form["client_id"], form["client_secret"])
        if app is None:
            return _oauth_error(401, "invalid_client", "The app or its secret is unknown.")
        if grant == "client_credentials":
            if not app.trusted:
                return _oauth_error(400, "unauthorized_client", "The app is not trusted.")
        elif grant == "refresh_token":
            if not form.get("refresh_token"):
                return _oauth_error(400, "invalid_request", "refresh_token is required.")
            if not self._store.use_refresh_token(app, form["refresh_token"]):
                return _oauth_error(400, "invalid_grant", "The refresh token is not valid.")
        else:
            message = "grant_type must be client_credentials or refresh_token."
            return _oauth_error(400, "unsupported_grant_type", message)
        return _json(200, msgspec.to_builtins(self._store.issue(app)))


def _authenticate(store: Store, request: Request, query: Sequence[tuple[str, str]]) -> User:
    """Return the user of the token, or without a token the user of the web session.

    The token is in the header, or in the query with or without `Bearer`.
    """
    in_header = "Authorization" in request.headers
    given = request.headers.get("Authorization", dict(query).get("accessRequestToken"))
    user = None
    if given is None:
        user = _user_of_session(store, request)
    else:
        match = re.fullmatch(r"(bearer +)?(\S+)", given.strip(), re.IGNORECASE)
        if match is not None and (match[1] or not in_header):
            user = store.user_of(match[2])
    if user is None:
        raise Refused("access_denied")
    return user


def _user_of_session(store: Store, request: Request) -> User | None:
    """Return the user of a browser's session.

    Presence Service (v5) shows one in a curl line and only says "cookie or header token". That `vn`
    is the session, and that the header must repeat the cookie `xsrf-token`, is inferred from there.
    """
    cookies, repeated = request.cookies, request.headers.get("x-xsrf-token")
    if not repeated or repeated != cookies.get("xsrf-token"):
        return None
    return store.user_of_session(cookies.get("vn", ""))


async def _body(request: Request) -> bytes | None:
    """Return the body, or None if it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return bytes(body)


def _pairs(data: bytes) -> list[tuple[str, str]]:
    """Decode leniently, like PHP: skip empty pairs, replace bad UTF-8."""
    return parse_qsl(data.decode("utf-8", "replace"), keep_blank_values=True, errors="replace")


def _json(status: int, data: object, headers: dict[str, str] | None = None) -> Response:
    # In ASCII: a note may hold half of a surrogate pair, which UTF-8 cannot encode.
    return Response(json.dumps(data), status, headers, media_type="application/json")


def _oauth_error(
    status: int, error: str, message: str, headers: dict[str, str] | None = None
) -> Response:
    return _json(status, {"error": error, "error_description": message}, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette calls it for no other
    return _json(error.status_code, {"error": {"code": "not_found", "message": error.detail}})


async def _server_error(request: Request, error: Exception) -> Response:
    return _json(500, Refused("internal_server_error").body)
