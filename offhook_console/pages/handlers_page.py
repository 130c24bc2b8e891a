"""Handlers: does everything get to its target; one handler; a replay to it."""

import asyncio
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from offhook.errors import ConfigError
from offhook.event import GROUPS, EventType
from offhook.inbox.record_part import RecordedAttempt
from offhook.inbox.replays import Replays
from offhook.operations import dead_letters
from offhook.operations.audit import Change, Details, note_change
from offhook.operations.dead_letters import DeadLetterHead, Filter
from offhook.operations.filter_question import SPANS as question_spans
from offhook.operations.filter_question import FilterAnswer
from offhook.operations.status import HandlerStatus
from offhook.operations.trials import attempts_of, trial_types
from offhook.plugins import event_types
from offhook.settings import HandlerSettings
from offhook_console.call_query import moment_of
from offhook_console.handler_actions import ask, configured
from offhook_console.handler_course import SPANS
from offhook_console.languages import gettext
from offhook_console.parts import ConsoleParts, parts_of
from offhook_console.people import Person
from offhook_console.problem_details import ConsoleError

_MOST_ANSWERS = 8
_TRIAL = re.compile(r"[\w./-]{1,60}/test-[0-9a-f]{12}")


@dataclass(frozen=True)
class AnswerGroup:
    """Why dead letters died, and how many of them."""

    error: str
    times: int
    first: datetime
    last: datetime
    url: str


@dataclass(frozen=True)
class Trial:
    """A test event by its call, and the last attempt at it."""

    call: str
    attempt: RecordedAttempt | None


async def handlers(request: Request, person: Person) -> Response:
    """Show all handlers."""
    parts = parts_of(request)
    await parts.feed.look_at_deliveries()
    return parts.pages.page(
        request,
        person,
        "handlers.html",
        handlers=parts.feed.deliveries.handlers,
        uses={name: each.use for name, each in parts.settings.handlers.items()},
        problems=await parts.attention.get(parts.inbox, parts.rq, parts.settings),
    )


async def handler(request: Request, person: Person) -> Response:
    """Show one handler."""
    parts = parts_of(request)
    name, policy = configured(parts, request.path_params["name"])
    await parts.feed.look_at_deliveries()
    letters = await asyncio.to_thread(_letters, parts, name)
    span = request.query_params.get("span", "today")
    question = _question(request, policy)
    return parts.pages.page(
        request,
        person,
        "handler.html",
        handler=_status(parts, name),
        policy=policy,
        events=_events(policy),
        answers=group_by_answer(letters, {"handler": name})[:_MOST_ANSWERS],
        did=request.query_params.get("did"),
        trial=await _trial(parts, name, request.query_params.get("test")),
        types=_types(policy),
        span=span if span in SPANS else "today",
        spans=SPANS,
        course=await parts.courses.get(parts.inbox, name, span if span in SPANS else "today"),
        question=question,
        question_spans=question_spans,
        answer=await _answer(parts, name, question) if question["of"] else None,
    )


async def replay(request: Request, person: Person) -> Response:
    """Count the events of a replay, then set the handler back."""
    parts = parts_of(request)
    name, _ = configured(parts, request.path_params["name"])
    if request.method == "GET":
        since = _since(request.query_params.get("since"))
        found = await Replays(parts.inbox).find(name, since)
        return parts.pages.page(
            request,
            person,
            "replay.html",
            name=name,
            number=found.total,
            first=found.first,
            asked=since,
            since=since.isoformat(),
        )
    async with request.form(max_files=0, max_fields=5) as form:
        since = _since(str(form.get("since", "")))
    number = await Replays(parts.inbox).set_back(name, since)
    details: Details = {"handler": name, "since": f"{since:%Y-%m-%dT%H:%M:%SZ}", "number": number}
    await note_change(parts.inbox.redis, person.name, Change.HANDLER_REPLAYED, details)
    return RedirectResponse(f"/handlers/{name}", 303)


def group_by_answer(letters: list[DeadLetterHead], query: dict[str, str]) -> list[AnswerGroup]:
    """Dead letters by their last answer, the most frequent first.

    Args:
        query: the filters that each answer's URL has besides the answer.
    """
    died: defaultdict[str, list[datetime]] = defaultdict(list)
    for each in letters:
        died[each.error].append(each.died)
    return [
        AnswerGroup(
            error,
            len(times),
            min(times),
            max(times),
            f"/dead-letters?{urlencode({**query, 'error': error})}",
        )
        for error, times in sorted(died.items(), key=lambda each: -len(each[1]))
    ]


def _letters(parts: ConsoleParts, name: str) -> list[DeadLetterHead]:
    return list(dead_letters.heads(parts.rq, Filter(handler=name)))


def _question(request: Request, policy: HandlerSettings) -> dict[str, str]:
    """The fields of the filter question, as in the URL; else the present filter."""
    given = request.query_params
    return {
        "events": given.get("events", ", ".join(_events(policy) if policy.events else ())),
        "extensions": given.get("extensions", ", ".join(policy.extensions or ())),
        "of": given.get("of", ""),
    }


async def _answer(parts: ConsoleParts, name: str, question: dict[str, str]) -> FilterAnswer | str:
    """The answer to the filter question, or what is wrong with it."""
    try:
        return await ask(parts, name, question["events"], question["extensions"], question["of"])
    except ConsoleError as error:
        return error.detail


async def _trial(parts: ConsoleParts, name: str, call: str | None) -> Trial | None:
    """A test event that was sent a moment ago, and what became of it."""
    if call is None or not _TRIAL.fullmatch(call):
        return None
    attempts = await attempts_of(parts.inbox, name, call)
    return Trial(call, attempts[0] if attempts else None)


def _types(policy: HandlerSettings) -> list[EventType]:
    try:
        return trial_types(policy)
    except ConfigError:
        return []


def _status(parts: ConsoleParts, name: str) -> HandlerStatus:
    return next(each for each in parts.feed.deliveries.handlers if each.name == name)


def _events(policy: HandlerSettings) -> list[str]:
    """The event types that a handler gets, a complete group by its name."""
    try:
        events = set(event_types(policy))
    except ConfigError:
        return [gettext("unknown: the plugin cannot be loaded")]
    whole = [name for name, group in GROUPS.items() if set(group) <= events]
    named = {each for name in whole for each in GROUPS[name]}
    return [*whole, *(each.value for each in EventType if each in events and each not in named)]


def _since(text: str | None) -> datetime:
    since = moment_of(text or None, "since")
    if since is None or since > datetime.now(UTC):
        raise ConsoleError(400, gettext("since: write a time in the past, as 2026-05-01T14:00."))
    return since
