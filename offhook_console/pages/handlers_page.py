"""Handlers: does everything get to its target; one handler; a replay to it."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from offhook.errors import ConfigError
from offhook.event import GROUPS, EventType
from offhook.inbox.replays import Replays
from offhook.operations import dead_letters
from offhook.operations.audit import note_change
from offhook.operations.dead_letters import DeadLetterHead, Filter
from offhook.operations.status import HandlerStatus
from offhook.plugins import event_types
from offhook.settings import HandlerSettings
from offhook_console.call_query import moment_of
from offhook_console.parts import ConsoleParts, parts_of
from offhook_console.people import Person
from offhook_console.problem_details import ConsoleError
from offhook_console.wording import counted

_MOST_ANSWERS = 8


@dataclass(frozen=True)
class AnswerGroup:
    """Why dead letters died, and how many of them."""

    error: str
    times: int
    first: datetime
    last: datetime
    url: str


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
    name, policy = _named(request, parts)
    await parts.feed.look_at_deliveries()
    letters = await asyncio.to_thread(_letters, parts, name)
    return parts.pages.page(
        request,
        person,
        "handler.html",
        handler=_status(parts, name),
        policy=policy,
        events=_events(policy),
        answers=group_by_answer(letters, {"handler": name})[:_MOST_ANSWERS],
    )


async def replay(request: Request, person: Person) -> Response:
    """Count the events of a replay, then set the handler back."""
    parts = parts_of(request)
    name, _ = _named(request, parts)
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
    did = f"set {name} back to {since:%Y-%m-%d %H:%M:%S} UTC: {counted(number, 'event')}"
    await note_change(parts.inbox.redis, person.name, did)
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


def _named(request: Request, parts: ConsoleParts) -> tuple[str, HandlerSettings]:
    name = request.path_params["name"]
    if name not in parts.settings.handlers:
        raise ConsoleError(404, "There is no handler with this name.")
    return name, parts.settings.handlers[name]


def _status(parts: ConsoleParts, name: str) -> HandlerStatus:
    return next(each for each in parts.feed.deliveries.handlers if each.name == name)


def _events(policy: HandlerSettings) -> list[str]:
    """The event types that a handler gets, a complete group by its name."""
    try:
        events = set(event_types(policy))
    except ConfigError:
        return ["unknown: the plugin cannot be loaded"]
    whole = [name for name, group in GROUPS.items() if set(group) <= events]
    named = {each for name in whole for each in GROUPS[name]}
    return [*whole, *(each.value for each in EventType if each in events and each not in named)]


def _since(text: str | None) -> datetime:
    since = moment_of(text or None, "since")
    if since is None or since > datetime.now(UTC):
        raise ConsoleError(400, "since: write a time in the past, as 2026-05-01T14:00.")
    return since
