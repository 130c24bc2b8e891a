"""The endpoints of the API, and the table of them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from offhook.call import Call
from offhook.inbox import quarantine as refused_callbacks
from offhook.operations import dead_letters
from offhook.operations.audit import changes
from offhook.operations.bulk import BulkOperation
from offhook.operations.status import HandlerStatus
from offhook_console import quarantine_actions
from offhook_console.access import ConsoleRoute, Endpoint, console_route, public_route
from offhook_console.call_query import find_calls, live_calls, read_query
from offhook_console.dialling import dialled
from offhook_console.directory import check_tenant
from offhook_console.json_api import shapes
from offhook_console.json_api.bodies import answer, read_body, read_parameters
from offhook_console.json_api.handler_endpoints import HANDLER_ENDPOINTS
from offhook_console.json_api.openapi_document import ApiEndpoint, openapi
from offhook_console.json_api.people_endpoints import PEOPLE_ENDPOINTS
from offhook_console.json_api.phone_system_endpoints import PHONE_SYSTEM_ENDPOINTS
from offhook_console.letters import announce_change, matching_letters
from offhook_console.missed_views import shown_calls
from offhook_console.moments import moment_at
from offhook_console.parts import ConsoleParts, parts_of
from offhook_console.past_board import past_board
from offhook_console.people import Person, Right
from offhook_console.problem_details import ConsoleError
from offhook_console.repeats import once
from offhook_console.worklist_query import find_missed

_BASE = "/api/v1"
_MOST = 500  # entries of a list
T = TypeVar("T")


async def list_calls(request: Request, person: Person) -> Response:
    parts = parts_of(request)
    given = dict(request.query_params)
    limit = _limit(given.pop("limit", "50"))
    found = await find_calls(
        parts.inbox, read_query(given), person.view, parts.region_of(person), limit, person.tenant
    )
    calls = [shapes.seen_call(call, person.view) for call in found.calls]
    return answer(shapes.CallList(calls, found.cursor))


async def list_live_calls(request: Request, person: Person) -> Response:
    parts = parts_of(request)
    known = await live_calls(parts.inbox, parts.region_of(person), person.tenant)
    calls = [shapes.seen_call(each, person.view) for each in known if person.view.shows(each)]
    return answer(shapes.CallList(calls, None))


async def get_board(request: Request, person: Person) -> Response:
    parts, view, now = parts_of(request), person.view, datetime.now(UTC)
    at = moment_at(request.query_params.get("at"), now)
    is_past = at is not None and at < now
    board = await past_board(parts, person, at) if at and is_past else parts.feed_of(person).board
    lanes = {
        lane: [shapes.seen_call(call, view) for call in board.lane(lane, view)]
        for lane in ("ringing", "talking", "ended")
    }
    moment = at if at and is_past else now
    return answer(shapes.BoardState(at=moment, figures=board.figures(view), **lanes))


async def get_call(request: Request, person: Person) -> Response:
    parts = parts_of(request)
    kept, call = await parts.call(request, person)
    events, deliveries = await parts.history(kept, person)
    return answer(shapes.CallDetail(shapes.seen_call(call, person.view), events, deliveries))


async def list_missed(request: Request, person: Person) -> Response:
    query = read_parameters(request, shapes.MissedQuery)
    limit = _limit(str(query.limit))
    found = await find_missed(parts_of(request), person, query.state, query.queue)
    view = person.view
    page, more = _page(found, limit, query.after, lambda each: _name(shown_calls(view, each)[0]))
    seen = [shapes.seen_missed(each, view) for each in page]
    return answer(shapes.MissedList(seen, len(found), more))


async def dial(request: Request, person: Person) -> Response:
    parts, wanted = parts_of(request), await read_body(request, shapes.DialRequest)
    feed, number = parts.feed_of(person), dialled(wanted.number)
    made = await parts.dialling.dial(feed, person, number, wanted.extension)
    return answer(shapes.DialledCall(made), 202)


async def list_handlers(request: Request, person: Person) -> Response:
    return answer(shapes.HandlerList(await _handlers(parts_of(request))))


async def get_handler(request: Request, person: Person) -> Response:
    name = request.path_params["name"]
    for each in await _handlers(parts_of(request)):
        if each.name == name:
            return answer(each)
    raise ConsoleError(404, "There is no handler with this name.")


async def list_dead_letters(request: Request, person: Person) -> Response:
    parts = parts_of(request)
    query = read_parameters(request, shapes.DeadLetterQuery)
    limit = _limit(str(query.limit))
    found = await asyncio.to_thread(matching_letters, parts, _words(query))
    page, more = _page(found, limit, query.after, lambda head: head.id)
    ids = [head.id for head in page]
    letters = await asyncio.to_thread(lambda: list(dead_letters.get(parts.rq, ids)))
    return answer(shapes.DeadLetterList(letters, len(found), more))


async def start_operation(request: Request, person: Person) -> Response:
    parts = parts_of(request)
    wanted = await read_body(request, shapes.OperationRequest)
    if wanted.since == "":
        raise ConsoleError(400, "since: is empty; leave it out.")
    operation = await announce_change(
        parts,
        person,
        wanted.kind,
        _words(wanted),
        wanted.ids,
        datetime.now(UTC),
        wanted.count,
    )
    await parts.feed.look_at_deliveries()
    return answer(operation, 202)


async def list_operations(request: Request, person: Person) -> Response:
    return answer(shapes.OperationList(await parts_of(request).operations.all()))


async def undo_operation(request: Request, person: Person) -> Response:
    parts = parts_of(request)
    operation = await parts.operations.undo(request.path_params["id"], person.name)
    if operation is None:
        raise ConsoleError(404, "There is no such operation.")
    await parts.feed.look_at_deliveries()
    return answer(operation)


async def list_quarantine(request: Request, person: Person) -> Response:
    kept = await refused_callbacks.kept(parts_of(request).inbox.redis, most=_MOST)
    return answer(shapes.Quarantine([_refused(key, refused) for key, refused in kept]))


async def deliver_refused(request: Request, person: Person) -> Response:
    key = request.path_params["id"]
    did = await quarantine_actions.deliver_refused(parts_of(request), person, key)
    return answer(shapes.QuarantineOutcome(*did))


async def discard_refused(request: Request, person: Person) -> Response:
    key = request.path_params["id"]
    await quarantine_actions.discard_refused(parts_of(request), person, key)
    return Response(status_code=204)


async def get_status(request: Request, person: Person) -> Response:
    parts = parts_of(request)
    overview = shapes.Overview(
        handlers=await _handlers(parts),
        problems=await parts.attention.get(parts.inbox, parts.rq, parts.settings),
        live=await parts.calls.live(),
        quarantined=parts.feed.deliveries.quarantined,
    )
    return answer(overview)


async def list_changes(request: Request, person: Person) -> Response:
    parts, tenant = parts_of(request), request.query_params.get("tenant", "")
    check_tenant(parts, person, tenant)
    entries = await changes(parts.inbox.redis, _MOST, tenant)
    return answer(shapes.AuditLog(list(entries)))


ENDPOINTS = (
    ApiEndpoint("GET", f"{_BASE}/calls", list_calls, Right.CALLS, "List calls, newest first.",
             shapes.CallList, query=shapes.CallListQuery),
    ApiEndpoint("GET", f"{_BASE}/calls/live", list_live_calls, Right.CALLS,
             "List the calls in progress.", shapes.CallList),
    ApiEndpoint("GET", f"{_BASE}/board", get_board, Right.CALLS,
             "Get the wallboard as it is, or as it was.", shapes.BoardState,
             query=shapes.BoardQuery),
    ApiEndpoint("GET", f"{_BASE}/calls/{{pbx}}/{{id:path}}", get_call, Right.CALLS,
             "Get a call and its events.", shapes.CallDetail),
    ApiEndpoint("POST", f"{_BASE}/calls", dial, Right.DIAL,
             "Call a number: the user's own phone rings first.", shapes.DialledCall,
             body=shapes.DialRequest, status=202),
    ApiEndpoint("GET", f"{_BASE}/missed", list_missed, Right.CALLS,
             "List callers who were missed, and how they were reached.", shapes.MissedList,
             query=shapes.MissedQuery),
    ApiEndpoint("GET", f"{_BASE}/handlers", list_handlers, Right.DELIVERIES,
             "List the handlers and their progress.", shapes.HandlerList),
    ApiEndpoint("GET", f"{_BASE}/handlers/{{name}}", get_handler, Right.DELIVERIES,
             "Get the progress of a handler.", HandlerStatus),
    *HANDLER_ENDPOINTS,
    *PHONE_SYSTEM_ENDPOINTS,
    ApiEndpoint("GET", f"{_BASE}/dead-letters", list_dead_letters, Right.DELIVERIES,
             "List dead letters.", shapes.DeadLetterList, query=shapes.DeadLetterQuery),
    ApiEndpoint("GET", f"{_BASE}/dead-letters/operations", list_operations, Right.DELIVERIES,
             "List the operations on dead letters.", shapes.OperationList),
    ApiEndpoint("POST", f"{_BASE}/dead-letters/operations", start_operation, Right.REPAIR,
             "Retry or discard all dead letters that match, in ten seconds.", BulkOperation,
             body=shapes.OperationRequest, status=202),
    ApiEndpoint("POST", f"{_BASE}/dead-letters/operations/{{id}}/undo", undo_operation,
             Right.REPAIR, "Undo an operation that has not begun; stop one that runs.",
             BulkOperation),
    ApiEndpoint("GET", f"{_BASE}/quarantine", list_quarantine, Right.DELIVERIES,
             "List refused callbacks.", shapes.Quarantine),
    ApiEndpoint("POST", f"{_BASE}/quarantine/{{id}}/deliver", deliver_refused, Right.REPAIR,
             "Read a refused callback again, and deliver its event.", shapes.QuarantineOutcome),
    ApiEndpoint("DELETE", f"{_BASE}/quarantine/{{id}}", discard_refused, Right.REPAIR,
             "Discard a refused callback.", None, status=204),
    ApiEndpoint("GET", f"{_BASE}/status", get_status, Right.DELIVERIES,
             "Get the progress of everything, and what needs attention.", shapes.Overview),
    ApiEndpoint("GET", f"{_BASE}/audit", list_changes, Right.REPAIR, "List who changed what.",
             shapes.AuditLog, query=shapes.AuditQuery),
    *PEOPLE_ENDPOINTS,
)  # fmt: skip


async def openapi_json(request: Request) -> Response:
    return answer(openapi(ENDPOINTS))


def api_routes() -> list[ConsoleRoute]:
    """The routes of the API."""
    return [
        public_route(f"{_BASE}/openapi.json", openapi_json),
        *(
            console_route(each.path, _repeatable(each), each.right, (each.method,))
            for each in ENDPOINTS
        ),
    ]


def _checked(described: ApiEndpoint) -> Endpoint:
    """A form of a page leaves fields empty; a program has no reason to."""

    async def checked(request: Request, person: Person) -> Response:
        for name in ("at", "since", "until", "event"):
            if request.query_params.get(name) == "":
                raise ConsoleError(400, f"{name}: is empty; leave it out.")
        return await described.endpoint(request, person)

    checked.__name__ = described.endpoint.__name__
    return checked


def _repeatable(described: ApiEndpoint) -> Endpoint:
    """What changes something takes an idempotency key."""
    if not described.changes:
        return _checked(described)

    async def repeatable(request: Request, person: Person) -> Response:
        return await once(request, person, _checked(described))

    repeatable.__name__ = described.endpoint.__name__
    return repeatable


async def _handlers(parts: ConsoleParts) -> list[HandlerStatus]:
    await parts.feed.look_at_deliveries()
    return parts.feed.deliveries.handlers


def _refused(key: str, refused: Mapping[str, bytes]) -> shapes.RefusedCallbackDetail:
    texts = {name: value.decode("utf-8", "replace") for name, value in refused.items()}
    own = {name: texts.pop(name, "") for name in ("pbx", "extension", "event_type", "message")}
    received = datetime.fromisoformat(texts.pop("received"))
    return shapes.RefusedCallbackDetail(id=key, received=received, request=texts, **own)


def _page(
    found: Sequence[T], limit: int, after: str | None, id_of: Callable[[T], str]
) -> tuple[list[T], str | None]:
    """A part of a list, and the cursor of the next one."""
    ids = [id_of(each) for each in found]
    if after is not None and after not in ids:
        raise ConsoleError(
            404, "after: this entry is no longer in the list; start again without it."
        )
    at = ids.index(after) + 1 if after else 0
    more = ids[at + limit - 1] if at + limit < len(found) else None
    return list(found[at : at + limit]), more


def _name(call: Call) -> str:
    return f"{call.pbx}/{call.id}"


def _words(query: shapes.DeadLetterQuery | shapes.OperationRequest) -> dict[str, str]:
    names = ("handler", "error", "since", "q")
    return {name: getattr(query, name) for name in names if getattr(query, name)}


def _limit(text: str) -> int:
    limit = int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 0
    if not 1 <= limit <= _MOST:
        raise ConsoleError(400, f"limit: must be a number from 1 to {_MOST}.")
    return limit
