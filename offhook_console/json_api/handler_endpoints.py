"""The endpoints of the API that are about one handler."""

from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from offhook.event import CALLBACKS, GROUPS, EventType
from offhook.operations.filter_question import FilterAnswer
from offhook.operations.status import HandlerStatus
from offhook_console.handler_actions import LONGEST, ask, change_pause, configured, try_handler
from offhook_console.handler_course import SPANS, HandlerCourse
from offhook_console.json_api.bodies import answer
from offhook_console.json_api.openapi_document import ApiEndpoint
from offhook_console.parts import parts_of
from offhook_console.people import Person, Right
from offhook_console.problem_details import ConsoleError

_ONE = "/api/v1/handlers/{name}"
_WORD = f" *({'|'.join(sorted([*EventType, *GROUPS]))})? *"
_EVENTS = f"^{_WORD}(,{_WORD})*$"
_TestType = Annotated[str, msgspec.Meta(extra_json_schema={"enum": sorted(CALLBACKS)})]


class FilterQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Another filter.

    Attributes:
        events: types and groups, separated by commas; empty: the handler's own choice.
        extensions: patterns, separated by commas; empty: all.
    """

    events: Annotated[str, msgspec.Meta(pattern=_EVENTS, max_length=LONGEST)] | None = None
    extensions: Annotated[str, msgspec.Meta(max_length=LONGEST)] | None = None
    of: Literal["1h", "today", "yesterday", "7d"] = "yesterday"


class CourseQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The time span."""

    span: Literal["1h", "today", "7d"] = "today"


class TestQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The type of the test event; the first that the handler gets if not given."""

    event: _TestType | None = None


class SentTest(msgspec.Struct, frozen=True, kw_only=True):
    """A test event that was sent. `call` finds its attempts in the record of deliveries."""

    event: str
    type: str
    call: str


async def pause_handler(request: Request, person: Person) -> Response:
    return await _set_paused(request, person, paused=True)


async def resume_handler(request: Request, person: Person) -> Response:
    return await _set_paused(request, person, paused=False)


async def test_handler(request: Request, person: Person) -> Response:
    name, _ = configured(parts_of(request), request.path_params["name"])
    kind = request.query_params.get("event", "")
    event = await try_handler(parts_of(request), person, name, kind)
    return answer(SentTest(event=event.id, type=event.type.value, call=event.call), 202)


async def ask_handler_filter(request: Request, person: Person) -> Response:
    given = request.query_params
    said = await ask(
        parts_of(request),
        request.path_params["name"],
        given.get("events"),
        given.get("extensions"),
        given.get("of", "yesterday"),
    )
    return answer(said)


async def get_handler_course(request: Request, person: Person) -> Response:
    parts = parts_of(request)
    name, _ = configured(parts, request.path_params["name"])
    span = request.query_params.get("span", "today")
    if span not in SPANS:
        raise ConsoleError(400, f"span: must be one of {', '.join(SPANS)}.")
    return answer(await parts.courses.get(parts.inbox, name, span))


async def _set_paused(request: Request, person: Person, *, paused: bool) -> Response:
    parts = parts_of(request)
    name, _ = configured(parts, request.path_params["name"])
    await change_pause(parts, person, name, paused=paused)
    return answer(next(each for each in parts.feed.deliveries.handlers if each.name == name))


HANDLER_ENDPOINTS = (
    ApiEndpoint("POST", f"{_ONE}/pause", pause_handler, Right.REPAIR,
             "Deliver nothing to a handler until it is resumed.", HandlerStatus),
    ApiEndpoint("POST", f"{_ONE}/resume", resume_handler, Right.REPAIR,
             "Deliver to a paused handler again.", HandlerStatus),
    ApiEndpoint("POST", f"{_ONE}/test", test_handler, Right.REPAIR,
             "Send a test event to a handler.", SentTest, query=TestQuery, status=202),
    ApiEndpoint("GET", f"{_ONE}/filter", ask_handler_filter, Right.DELIVERIES,
             "Ask what a handler would have got with another filter.", FilterAnswer,
             query=FilterQuery),
    ApiEndpoint("GET", f"{_ONE}/course", get_handler_course, Right.DELIVERIES,
             "Get a handler's deliveries, failures and durations over time.", HandlerCourse,
             query=CourseQuery),
)  # fmt: skip
