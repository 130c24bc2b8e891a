"""Calls: find any call; all that match as CSV; one call."""

import csv
import io
import time
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from offhook.call import Call, Outcome
from offhook.inbox.record_part import AttemptOutcome, RecordedAttempt
from offhook_console.call_query import CallQuery, find_calls, read_query
from offhook_console.call_views import (
    ATTEMPTS,
    OUTCOMES,
    CallView,
    view_call,
    view_legs,
    view_timeline,
)
from offhook_console.languages import N_, gettext
from offhook_console.moments import url_at
from offhook_console.parts import ConsoleParts, parts_of
from offhook_console.people import Person

PAGE = 50  # calls on a page
_EXPORTED = 1000  # calls in one step of an export
_A_SECOND = timedelta(seconds=1)
_SOON = timedelta(minutes=1)  # after the end of a call, in which its last events are delivered
_NAMES = {
    "since": N_("Since"),
    "until": N_("Until"),
    "extension": N_("Extension"),
    "outcome": N_("Outcome"),
    "live": N_("In progress"),
    "q": N_("Search"),
}
_COLUMNS = (
    "call",
    "began",
    "direction",
    "other_name",
    "other_number",
    "here",
    "answered_by",
    "outcome",
    "ring_seconds",
    "talk_seconds",
    "complete",
    "recovered",
)


async def calls(request: Request, person: Person) -> Response:
    """Show the calls that match the filters in the URL."""
    parts = parts_of(request)
    query = read_query(request.query_params)
    began = time.perf_counter()
    found = await find_calls(
        parts.inbox, query, person.view, parts.region_of(person), PAGE, person.tenant
    )
    moment = datetime.now(UTC)
    shown = [
        view_call(call, person.view, parts.feed_of(person).labels, moment) for call in found.calls
    ]
    said = query.said()
    first = query.before is None
    older = {**said, "before": found.cursor} if found.cursor else None
    may_be_newer = first and not said.get("until")
    return parts.pages.page(
        request,
        person,
        "calls.html",
        query=query,
        hint=gettext("Name, extension or the last three digits")
        if person.view.masked
        else gettext("Name, number or extension"),
        calls=shown,
        chips=[
            (
                gettext(_NAMES[name]),
                _shown(name, value),
                _url({n: v for n, v in said.items() if n != name}),
            )
            for name, value in said.items()
            if name != "before"
        ],
        outcomes=[(each.value, gettext(word)) for each, (_, _, word) in OUTCOMES.items()],
        export=f"/calls.csv?{urlencode(said)}",
        newest=_url({n: v for n, v in said.items() if n != "before"}),
        older=_url(older) if older else None,
        first_page="yes" if may_be_newer else "no",
        keep_days=f"{parts.settings.keep_days:g}",
        week_ago=(datetime.now().astimezone() - timedelta(days=7)).strftime("%Y-%m-%dT%H:%M"),
        took=round((time.perf_counter() - began) * 1000),
    )


async def calls_csv(request: Request, person: Person) -> Response:
    """All calls that match, as CSV; numbers are masked as on the page."""
    parts = parts_of(request)
    query = read_query(request.query_params)
    name = f"calls-{datetime.now().astimezone():%Y-%m-%d-%H%M}.csv"
    return StreamingResponse(
        _rows(parts, query, person),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


async def call(request: Request, person: Person) -> Response:
    """Show one call: its legs, its events, and how these were delivered."""
    parts = parts_of(request)
    kept, known = await parts.call(request, person)
    events, deliveries = await parts.history(kept, person)
    moment = datetime.now(UTC)
    drawn = view_timeline(known, parts.feed_of(person).labels, moment)
    view = view_call(known, person.view, parts.feed_of(person).labels, moment)
    return parts.pages.page(
        request,
        person,
        "call.html",
        call=view,
        board_url=url_at(known.started + _A_SECOND),
        goes_on=_goes_on(view, deliveries or (), moment),
        legs=list(zip(view_legs(known, parts.feed_of(person).labels), drawn.lanes, strict=True)),
        drawn=drawn,
        events=events,
        deliveries=deliveries,
        attempt_states=ATTEMPTS,
    )


def _goes_on(view: CallView, deliveries: Iterable[RecordedAttempt], now: datetime) -> bool:
    """Return whether there may be more attempts to deliver the call's events."""
    last = {(each.event, each.handler): each.outcome for each in deliveries}
    return (
        view.ended is None
        or now - view.ended < _SOON
        or not {AttemptOutcome.DELIVERED, AttemptOutcome.DEAD}.issuperset(last.values())
    )


async def _rows(parts: ConsoleParts, query: CallQuery, person: Person) -> AsyncIterator[str]:
    yield _line(_COLUMNS)
    while True:
        found = await find_calls(
            parts.inbox, query, person.view, parts.region_of(person), _EXPORTED, person.tenant
        )
        yield "".join(
            _line(_row(each, view_call(each, person.view, parts.feed_of(person).labels)))
            for each in found.calls
        )
        if found.cursor is None:
            return
        query = msgspec.structs.replace(query, before=found.cursor)


def _row(call: Call, view: CallView) -> tuple[Any, ...]:
    named = view.other.line not in ("", "no name known")
    return (
        view.name,
        call.started.isoformat(),
        call.direction,
        view.other.head if named else "",
        view.other.line if named else view.other.head,
        view.place,
        view.answered_by,
        view.word,
        "" if call.ring_seconds is None else round(call.ring_seconds, 3),
        "" if call.talk_seconds is None else round(call.talk_seconds, 3),
        "yes" if call.complete else "no",
        "yes" if call.recovered else "no",
    )


def _line(values: tuple[Any, ...]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow([_harmless(value) for value in values])
    return line.getvalue()


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet does not run as a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


def _shown(name: str, value: str) -> str:
    """The value of a filter, as people read it."""
    if name == "outcome":
        return gettext(OUTCOMES[Outcome(value)][2])
    return gettext("yes") if name == "live" else value


def _url(parameters: dict[str, str]) -> str:
    return f"/calls?{urlencode(parameters)}" if parameters else "/calls"
