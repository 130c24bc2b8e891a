"""`application`: the console as an ASGI app."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.staticfiles import StaticFiles

from offhook.connection import connected
from offhook.operations.running_files import Loaded
from offhook.settings import Settings
from offhook_console.access import console_route, console_socket, is_api, public_route
from offhook_console.guard_rails import GuardRails
from offhook_console.json_api.endpoints import api_routes
from offhook_console.languages import N_, gettext, language_of, speaking
from offhook_console.pages import (
    audit_page,
    calls_page,
    dead_letters_page,
    dial_page,
    extensions_page,
    handler_actions_page,
    handlers_page,
    live_page,
    me_page,
    missed_page,
    now_page,
    people_page,
    proof_page,
    quarantine_page,
    sign_in_page,
    wall_page,
)
from offhook_console.parts import ConsoleParts, Deliver
from offhook_console.people import Right
from offhook_console.problem_details import ConsoleError, problem
from offhook_console.rendering import STATIC, static_version
from offhook_console.running_parts import replaceable_parts
from offhook_console.single_sign_on import CALLBACK, import_oauth

log = logging.getLogger("offhook.console")

POST = ("POST",)
# Messages: the names of the statuses that pages may have.
_TITLES: Mapping[int, str] = {
    400: N_("Bad Request"),
    403: N_("Forbidden"),
    404: N_("Not Found"),
    405: N_("Method Not Allowed"),
    409: N_("Conflict"),
    429: N_("Too Many Requests"),
    500: N_("Internal Server Error"),
    502: N_("Bad Gateway"),
    503: N_("Service Unavailable"),
}


def application(settings: Settings, deliver: Deliver, loaded: Loaded | None = None) -> Starlette:
    """The console of an installation.

    Args:
        deliver: reads refused callbacks again, as `receiver.quarantine_retry.retry` does.
        loaded: the version of the settings, to take part in reloads; None: take no part.

    Raises:
        ConfigError: a package that the settings need is not installed.
    """
    if settings.console.oidc is not None:
        import_oauth()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with (
            connected(settings) as (inbox, rq),
            replaceable_parts(app, settings, inbox, rq, deliver, loaded),
        ):
            yield

    return Starlette(
        routes=routes(),
        middleware=[Middleware(GuardRails)],
        exception_handlers={
            ConsoleError: _console_error,
            HTTPException: _http_error,
            RedisError: _redis_error,
            Exception: _unexpected,
        },
        lifespan=lifespan,
    )


def routes() -> list[BaseRoute]:
    """All routes, each with the right that it needs."""
    calls, deliveries, repair = Right.CALLS, Right.DELIVERIES, Right.REPAIR
    people = Right.PEOPLE
    return [
        Mount(f"/static/{static_version()}", StaticFiles(directory=STATIC), name="static"),
        public_route("/sign-in", sign_in_page.sign_in, ("GET", "POST")),
        public_route("/sign-in/oidc", sign_in_page.begin_oidc),
        public_route(CALLBACK, sign_in_page.finish_oidc),
        console_route("/sign-out", sign_in_page.sign_out, None, POST),
        console_route("/", sign_in_page.start, None),
        console_route("/now", now_page.now, calls),
        console_route("/live", live_page.live, Right.LIVE),
        console_socket("/live", live_page.live_socket, Right.LIVE),
        console_route("/wall", wall_page.wall, calls),
        console_route("/wall/live", wall_page.wall_live, calls),
        public_route("/wall/{link}", wall_page.linked_wall),
        public_route("/wall/{link}/live", wall_page.linked_wall_live),
        console_route("/calls", calls_page.calls, calls),
        console_route("/calls.csv", calls_page.calls_csv, calls),
        console_route("/calls/{pbx}/{id:path}", calls_page.call, calls),
        console_route("/me", me_page.me, calls),
        console_route("/dial", dial_page.dial, Right.DIAL),
        console_route("/dial", dial_page.make_call, Right.DIAL, POST),
        console_route("/missed", missed_page.missed, calls),
        console_route("/handlers", handlers_page.handlers, deliveries),
        console_route("/handlers/{name}", handlers_page.handler, deliveries),
        console_route("/handlers/{name}/pause", handler_actions_page.pause, repair, POST),
        console_route("/handlers/{name}/resume", handler_actions_page.resume, repair, POST),
        console_route("/handlers/{name}/test", handler_actions_page.send_test, repair, POST),
        console_route("/handlers/{name}/replay", handlers_page.replay, repair, ("GET", "POST")),
        console_route("/dead-letters", dead_letters_page.dead_letters, deliveries),
        console_route(
            "/dead-letters/operations", dead_letters_page.change_dead_letters, repair, POST
        ),
        console_route(
            "/dead-letters/operations/{id}/undo", dead_letters_page.undo_change, repair, POST
        ),
        console_route("/dead-letters/{id}", dead_letters_page.dead_letter, deliveries),
        console_route("/quarantine", quarantine_page.quarantine, deliveries),
        console_route("/quarantine", quarantine_page.change_quarantine, repair, POST),
        console_route("/extensions", extensions_page.extensions, deliveries),
        console_route("/extensions/run", extensions_page.run, deliveries),
        console_route("/extensions/compare", extensions_page.compare, repair, POST),
        console_route("/extensions/setup", extensions_page.plan, repair),
        console_route("/extensions/setup", extensions_page.set_up, repair, POST),
        console_route("/proof", proof_page.proof, deliveries),
        console_route("/proof/compare", proof_page.compare, repair, POST),
        console_route("/audit", audit_page.audit, repair),
        console_route("/people", people_page.people, people),
        console_route("/people/walls", people_page.make_wall, people, POST),
        console_route("/people/walls/{id}/revoke", people_page.revoke_wall, people, POST),
        *api_routes(),
    ]


async def _console_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ConsoleError)  # noqa: S101
    return _answer(request, error.status, error.detail)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    detail = {
        404: gettext("There is no such page."),
        405: gettext("This address does not support this method."),
    }.get(error.status_code, error.detail)
    answer = _answer(request, error.status_code, detail)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # An address may have a route for each method.
        allowed = {
            method
            for route in request.app.routes
            if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
            for method in route.methods or ()
        }
        answer.headers["Allow"] = ", ".join(sorted(allowed))
    return answer


async def _redis_error(request: Request, error: Exception) -> Response:
    log.warning("Redis does not answer: %s", error)
    detail = gettext(
        "Redis does not answer. Callbacks are still accepted: the receiver writes them to its "
        "journal. This page works again when Redis does."
    )
    return _answer(request, 503, detail)


async def _unexpected(request: Request, error: Exception) -> Response:
    with speaking(language_of(request)):  # this is outside of the middleware
        detail = gettext("Unexpected error: see the console's log.")
        return _answer(request, 500, detail)


def _answer(request: Request, status: int, detail: str) -> Response:
    if is_api(request):
        return problem(status, detail)
    parts: ConsoleParts = request.app.state.parts
    theme = request.cookies.get("theme")
    html = parts.pages.html(
        "error.html",
        theme=theme if theme in ("light", "dark") else None,
        status=status,
        title=gettext(_TITLES.get(status, HTTPStatus(status).phrase)),
        detail=detail,
    )
    return Response(html, status, media_type="text/html")
