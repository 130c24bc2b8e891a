"""Dead letters that match a filter, and operations on all of them. For the pages and the API."""

import asyncio
from collections.abc import Mapping
from datetime import datetime

from offhook.event import CallEvent
from offhook.operations import dead_letters
from offhook.operations.bulk import BulkOperation, Kind
from offhook.operations.dead_letters import DeadLetter, DeadLetterHead, Filter
from offhook_console.call_query import moment_of
from offhook_console.languages import gettext
from offhook_console.parts import ConsoleParts
from offhook_console.people import Person
from offhook_console.problem_details import ConsoleError
from offhook_console.wording import number_of, shown_number

_TYPED_FROM = 100  # discarding as many asks to type the number


def matching_letters(
    parts: ConsoleParts,
    query: Mapping[str, str],
    ids: frozenset[str] = frozenset(),
    until: datetime | None = None,
) -> list[DeadLetterHead]:
    """The operator's dead letters that match, in the order of their events.

    Args:
        query: the filters `handler`, `error`, `since` and `q`.
        ids: only these, if there are any.
        until: the latest `died`.
    """
    words = query.get("q", "").strip().casefold()
    wanted = _filter(query, ids, until)
    if not words:
        return list(dead_letters.heads(parts.rq, wanted))
    return [
        DeadLetterHead(each.id, each.handler, each.error, each.died)
        for each in dead_letters.find(parts.rq, wanted)
        if any(words in text.casefold() for text in _texts(each))
    ]


def _filter(query: Mapping[str, str], ids: frozenset[str], until: datetime | None) -> Filter:
    return Filter(
        handler=query.get("handler") or None,
        error=query.get("error") or None,
        since=moment_of(query.get("since") or None, "since"),
        until=until,
        ids=ids or None,
        tenant="",
    )


async def announce_change(
    parts: ConsoleParts,
    person: Person,
    kind: Kind,
    query: Mapping[str, str],
    ids: frozenset[str],
    asked: datetime | None,
    typed: int | None,
) -> BulkOperation:
    """Announce an operation on the dead letters that match.

    Args:
        ids: only these, if there are any.
        asked: what died later is not in it.
        typed: the number that the person typed.

    Raises:
        ConsoleError: nothing matches, or the number is not the one that was typed.
    """
    matching = await asyncio.to_thread(matching_letters, parts, query, ids, asked)
    if not matching:
        raise ConsoleError(409, gettext("No dead letter matches now."))
    if kind == "discard" and len(matching) >= _TYPED_FROM and typed != len(matching):
        problem = gettext("Type the number to confirm: {number} match now.", number=len(matching))
        raise ConsoleError(409, problem)
    if kind == "retry":
        gone = {each.handler for each in matching} - parts.settings.handlers.keys()
        if gone:
            names = ", ".join(sorted(gone))
            problem = gettext(
                "{names}: no longer configured, so nothing can be delivered.", names=names
            )
            raise ConsoleError(409, problem)
    wanted = _filter(query, ids, asked)
    # Exactly those that were counted, where the filter alone would select others, too.
    if query.get("q") or (parts.settings.tenants and not query.get("handler")):
        wanted = Filter(ids=frozenset(each.id for each in matching))
    return await parts.operations.ask(kind, wanted, person.name, len(matching))


def caller_of(event: CallEvent) -> str:
    """The outside party of an event: its name, or its number."""
    outside = event.called if event.direction == "out" else event.caller
    return (
        outside.name or shown_number(number_of(outside), masked=False) or gettext("withheld number")
    )


def _texts(letter: DeadLetter) -> tuple[str, ...]:
    event = letter.event
    return (event.call, event.extension, event.type.value, letter.error, caller_of(event))
