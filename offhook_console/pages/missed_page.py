"""Missed: callers who reached no person, as a list to work off."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from offhook.calls import MissedCaller
from offhook.inbox.missed_calls import KEPT
from offhook_console.call_views import Labels
from offhook_console.dialling import PER_MINUTE, own_extension
from offhook_console.languages import gettext, ngettext
from offhook_console.missed_views import MissedView, figures, view_missed
from offhook_console.moments import midnight_of
from offhook_console.parts import parts_of
from offhook_console.people import Person, Right
from offhook_console.worklist_query import find_missed, read_state

_MOST = 200  # of each list


async def missed(request: Request, person: Person) -> Response:
    """Show the missed callers that match the filters in the URL."""
    parts = parts_of(request)
    state = read_state(request.query_params.get("state") or "open")
    queue = request.query_params.get("queue", "")
    moment = datetime.now(UTC)
    today = midnight_of(moment)
    labels = parts.feed_of(person).labels
    every = await find_missed(parts, person, "all", queue)
    waiting = [each for each in every if each.reached is None]
    closed = sorted(
        ((each.reached.at, each) for each in every if each.reached),
        key=lambda pair: pair[0],
        reverse=True,
    )
    closed_today = sum(1 for at, _ in closed if at >= today)

    def shown(callers: Iterable[MissedCaller]) -> list[MissedView]:
        return [
            view_missed(each, person.view, labels, moment, person.name)
            for each in islice(callers, _MOST)
        ]

    return parts.pages.page(
        request,
        person,
        "missed.html",
        state=state,
        queue=queue,
        queue_label=", ".join(_label(extension, labels) for extension in queue.split(",")),
        tabs=[
            (name, label, number, _url(name, queue))
            for name, label, number in (
                ("open", gettext("Open"), len(waiting)),
                ("closed", gettext("Closed today"), closed_today),
                ("all", ngettext("Last {number} day", "Last {number} days", KEPT.days), None),
            )
        ],
        without_queue=_url(state, ""),
        all_figures=figures(every, today, moment),
        waiting=shown(waiting) if state != "closed" else [],
        closed=shown(each for at, each in closed if state == "all" or at >= today),
        days=KEPT.days,
        phone=own_extension(person) if person.may(Right.DIAL) else None,
        per_minute=PER_MINUTE,
    )


def _label(extension: str, labels: Labels) -> str:
    return next(
        (each.label for (_, known), each in labels.items() if known == extension and each.label),
        extension,
    )


def _url(state: str, queue: str) -> str:
    said = {"state": state, **({"queue": queue} if queue else {})}
    return f"/missed?{urlencode(said)}"
