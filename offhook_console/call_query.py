"""The filters of calls, in URLs of pages and of the API: the words of `offhook calls`."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

from offhook.call import Call, Outcome
from offhook.calls import CallFilter, name_of_latest, summarize
from offhook.inbox import Inbox
from offhook.inbox.call_search import UnknownCursor, search
from offhook.inbox.call_store import Calls, Kept
from offhook_console.languages import gettext
from offhook_console.people import View
from offhook_console.problem_details import ConsoleError

_DAY = timedelta(days=1)  # searched, if nothing is said
_MASKED_DIGITS = 3  # that a person who sees masked numbers may search for
_NUMBER = re.compile(r"[+\d][\d\s()./-]*")
_EXTENSION = re.compile(r"\d+\*[\d*]+")
_LIVE = 1000  # live calls in one request
_PAGES = 20  # that one search reads for people who do not see all calls


Moment = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]


class CallQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The filters of a list of calls.

    Attributes:
        q: a name, a number in any form or its last digits, or an extension such as 0003*210.
        since, until: when the calls began: ISO 8601, local time unless it has an offset. The last
            day if no filter is given.
        live: only calls in progress.
        before: the cursor of the next page, as a page has it.
    """

    q: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    extension: str | None = None
    outcome: Outcome | None = None
    live: bool = False
    before: str | None = None

    def said(self) -> dict[str, str]:
        """The filters that are set, as parameters of a URL."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return {
            name: "yes" if value is True else str(value) for name, value in values.items() if value
        }


@dataclass(frozen=True)
class FoundCalls:
    """Calls, newest first, and the cursor of the next page; None: there is none."""

    calls: list[Call]
    cursor: str | None


def read_query(parameters: Mapping[str, str]) -> CallQuery:
    """The filters in a URL.

    Raises:
        ConsoleError: one is wrong.
    """
    given = {name: value for name, value in parameters.items() if value}
    known = {name: value for name, value in given.items() if name in CallQuery.__struct_fields__}
    if known.get("live") in ("yes", "no"):
        known["live"] = "true" if known["live"] == "yes" else "false"
    try:
        query = msgspec.convert(known, CallQuery, strict=False)
    except msgspec.ValidationError as error:
        raise ConsoleError(400, gettext("A filter is wrong: {why}.", why=error)) from error
    for name in ("since", "until"):
        moment_of(getattr(query, name), name)
    return query


async def find_calls(
    inbox: Inbox, query: CallQuery, view: View, region: str | None, most: int, tenant: str = ""
) -> FoundCalls:
    """The newest calls that match, of those that people with this view see.

    A page may have fewer calls than asked for, or none, although others follow.

    Raises:
        ConsoleError: a filter is wrong.
    """
    wanted = _filter(query, view, region)
    found: list[Call] = []
    cursor = query.before
    for _ in range(_PAGES):
        try:
            page = await search(inbox, wanted, most - len(found), cursor, tenant)
        except UnknownCursor as error:
            problem = gettext("before: {why}; start again without it.", why=error)
            raise ConsoleError(404, problem) from error
        calls = [summarize(kept.state, region) for kept in page.calls]
        found += [call for call in calls if view.shows(call)]
        cursor = page.cursor
        if cursor is None or len(found) == most:
            break
    return FoundCalls(found, cursor)


async def live_calls(inbox: Inbox, region: str | None, tenant: str = "") -> list[Call]:
    """A tenant's calls in progress, newest first."""
    found: list[Call] = []
    cursor = None
    while True:
        page = await search(inbox, CallFilter(live=True), _LIVE, cursor, tenant)
        found += [summarize(kept.state, region) for kept in page.calls]
        cursor = page.cursor
        if cursor is None:
            return found


async def latest_calls(inbox: Inbox, calls: Calls, names: Iterable[str]) -> list[Kept]:
    """The latest call with the CallID of each of these names, as far as they are in the store."""
    candidates = {name: inbox.numbering.candidates(name) for name in names}
    found: dict[str, Kept] = {}
    while candidates:  # nearly always once: a call is where a new one would be
        wanted: defaultdict[int, list[str]] = defaultdict(list)
        for name, partitions in candidates.items():
            wanted[partitions.pop(0)].append(name)
        loaded = await asyncio.gather(*(calls.load_with_latest(*each) for each in wanted.items()))
        known = {name: kept for some in loaded for name, kept in some.items()}
        for name in candidates.keys() & known.keys():
            found[name] = known.get(name_of_latest(name, known[name].state), known[name])
        candidates = {n: left for n, left in candidates.items() if left and n not in found}
    return list(found.values())


def _filter(query: CallQuery, view: View, region: str | None) -> CallFilter:
    number, name, extension = _read_words(query.q, view)
    own = next(iter(view.own)) if view.own and len(view.own) == 1 else None
    since = moment_of(query.since, "since")
    if not query.said():
        since = datetime.now(UTC) - _DAY
    try:
        return CallFilter(
            number=number,
            name=name,
            extension=query.extension or extension or own,
            outcome=query.outcome,
            live=query.live,
            since=since,
            before=moment_of(query.until, "until"),
            region=region,
        )
    except ValueError as error:
        raise ConsoleError(400, f"q: {error}.") from error


def _read_words(words: str | None, view: View) -> tuple[str | None, str | None, str | None]:
    """What was searched for: a number, a name, or an extension."""
    words = (words or "").strip()
    if not words:
        return None, None, None
    if _EXTENSION.fullmatch(words):
        return None, None, words
    digits = re.sub(r"\D", "", words)
    if view.masked and digits:
        # More would let a person find out a number digit by digit; a name may be a number, too.
        return digits[-_MASKED_DIGITS:], None, None
    return (words, None, None) if _NUMBER.fullmatch(words) else (None, words, None)


def moment_of(text: str | None, name: str) -> datetime | None:
    """Read a time of a URL.

    Raises:
        ConsoleError: it is not one.
    """
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        problem = gettext("{name}: write a time as 2026-05-01T14:00.", name=name)
        raise ConsoleError(400, problem) from error
