"""Dead letters: by filter, look at them, retry or discard all that match."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from offhook import queues
from offhook.operations import dead_letters as letters_of
from offhook.operations.bulk import Kind
from offhook.operations.dead_letters import DeadLetter
from offhook.settings import tenant_of_plugin
from offhook_console.call_query import moment_of
from offhook_console.languages import N_, gettext
from offhook_console.letters import announce_change, caller_of, matching_letters
from offhook_console.pages.handlers_page import group_by_answer
from offhook_console.parts import ConsoleParts, parts_of
from offhook_console.people import Person
from offhook_console.problem_details import ConsoleError

_PAGE = 50
_ANSWERS = 6
_SHOWN = timedelta(minutes=2)  # for which an operation that has ended is shown
_NAMES = {"handler": N_("Handler"), "error": N_("Answer"), "since": N_("Died since")}


@dataclass(frozen=True)
class LetterView:
    """A dead letter, as shown."""

    id: str
    url: str
    handler: str
    head: str
    call_url: str
    event_type: str
    extension: str
    attempts: int
    error: str
    died: datetime
    received: datetime


@dataclass(frozen=True)
class OperationView:
    """A bulk operation, as shown; `left` are the seconds until it begins."""

    id: str
    kind: str
    by: str
    state: str
    count: int
    done: int
    left: int


async def dead_letters(request: Request, person: Person) -> Response:
    """Show the dead letters that match the filters in the URL."""
    parts = parts_of(request)
    query = {
        name: request.query_params.get(name, "") for name in ("handler", "error", "since", "q")
    }
    matching = await asyncio.to_thread(matching_letters, parts, query)
    matching.sort(key=lambda each: (each.died, each.id), reverse=True)
    said = {name: value for name, value in query.items() if value}
    first = _place(request.query_params.get("from"))
    ids = [each.id for each in matching[first : first + _PAGE]]
    shown = await asyncio.to_thread(lambda: list(letters_of.get(parts.rq, ids)))
    known = await asyncio.to_thread(_handlers, parts)
    older = first + _PAGE < len(matching)
    return parts.pages.page(
        request,
        person,
        "dead_letters.html",
        query=query,
        letters=[_view(each) for each in shown],
        total=len(matching),
        first=first + 1,
        answers=group_by_answer(matching, said)[:_ANSWERS],
        chips=[
            (gettext(_NAMES[name]), value, _url({n: v for n, v in said.items() if n != name}))
            for name, value in said.items()
            if name != "q"
        ],
        handlers=[
            (name, _url({**said, "handler": name})) for name in known if not query["handler"]
        ],
        asked=datetime.now(UTC).isoformat(),
        running=await _operations(parts),
        down=[each.name for each in parts.feed.deliveries.handlers if each.circuit is not None],
        newer=_url({**said, "from": str(max(0, first - _PAGE))}) if first else None,
        older=_url({**said, "from": str(first + _PAGE)}) if older else None,
    )


async def dead_letter(request: Request, person: Person) -> Response:
    """Show one dead letter."""
    parts = parts_of(request)
    ids = [request.path_params["id"]]
    letter = await asyncio.to_thread(lambda: next(letters_of.get(parts.rq, ids), None))
    if letter is None or tenant_of_plugin(letter.handler):
        raise ConsoleError(
            404, gettext("There is no such dead letter: it was retried or discarded.")
        )
    event = letter.event
    return parts.pages.page(
        request,
        person,
        "dead_letter.html",
        letter=_view(letter),
        parameters=[
            ("id", event.id),
            ("type", event.type.value),
            ("call", event.call),
            ("extension", event.extension),
            *event.parameters.items(),
        ],
        trace=await asyncio.to_thread(letters_of.traceback, parts.rq, letter),
        asked=datetime.now(UTC).isoformat(),
    )


async def change_dead_letters(request: Request, person: Person) -> Response:
    """Announce that all that match, or those that were ticked, are retried or discarded."""
    parts = parts_of(request)
    async with request.form(max_files=0, max_fields=_PAGE + 20) as form:
        kind = form.get("kind")
        query = {name: str(form.get(name, "")) for name in ("handler", "error", "since", "q")}
        ids = frozenset(str(each) for each in form.getlist("ids"))
        asked = moment_of(str(form.get("asked", "")) or None, "asked")
        typed = _number(form)
    if kind not in ("retry", "discard"):
        raise ConsoleError(400, gettext("kind: must be retry or discard."))
    chosen: Kind = "retry" if kind == "retry" else "discard"
    operation = await announce_change(parts, person, chosen, query, ids, asked, typed)
    await parts.feed.look_at_deliveries()
    said = {name: value for name, value in query.items() if value}
    return RedirectResponse(_url({**said, "operation": operation.id}), 303)


async def undo_change(request: Request, person: Person) -> Response:
    """Undo an operation that has not begun; stop one that runs."""
    parts = parts_of(request)
    operation = await parts.operations.undo(request.path_params["id"], person.name)
    if operation is None:
        raise ConsoleError(404, gettext("There is no such operation."))
    await parts.feed.look_at_deliveries()
    return RedirectResponse("/dead-letters", 303)


def _view(letter: DeadLetter) -> LetterView:
    event = letter.event
    call_id = event.summary.id if event.summary else event.call_id
    return LetterView(
        id=letter.id,
        url=f"/dead-letters/{quote(letter.id, safe='')}",
        handler=letter.handler,
        head=caller_of(event),
        call_url=f"/calls/{quote(event.pbx, safe='')}/{quote(call_id, safe='')}",
        event_type=event.type.value,
        extension=event.extension,
        attempts=letter.attempts,
        error=letter.error,
        died=letter.died,
        received=event.received,
    )


def _handlers(parts: ConsoleParts) -> list[str]:
    """The handlers that have dead letters."""
    ever = {name for name in queues.with_dead_letters(parts.rq) if not tenant_of_plugin(name)}
    names = sorted({*parts.settings.handlers, *ever})
    return [name for name, number in letters_of.counts(parts.rq, names).items() if number]


async def _operations(parts: ConsoleParts) -> list[OperationView]:
    now = datetime.now(UTC)
    return [
        OperationView(
            each.id,
            each.kind,
            each.by,
            each.state,
            each.count,
            each.done,
            max(0, round((each.due - now).total_seconds())),
        )
        for each in await parts.operations.all()
        if each.ended is None or now - each.ended < _SHOWN
    ]


def _number(form: FormData) -> int | None:
    text: Any = form.get("confirm", "")
    digits = "".join(filter(str.isdecimal, str(text)))
    return int(digits) if digits and len(digits) < 10 else None


def _place(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 9 else 0


def _url(parameters: Mapping[str, str]) -> str:
    return f"/dead-letters?{urlencode(parameters)}" if parameters else "/dead-letters"
