"""The agent's screen: the call at one's own phones, and the calls before it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from offhook.call import Call, Kind
from offhook.calls import CallFilter, outside_number, summarize
from offhook.inbox.call_search import search
from offhook.operations.phone_states import phone_states
from offhook_console.call_views import CallView, Labels, label_of, view_call
from offhook_console.languages import gettext
from offhook_console.missed_views import open_callers
from offhook_console.moments import midnight_of
from offhook_console.parts import ConsoleParts, parts_of
from offhook_console.people import Person, Right
from offhook_console.screen_pop import Pop, others_ringing, pop_of
from offhook_console.wording import duration, shown_number

_SHOWN = 20  # calls of the day
_BEFORE = 6  # calls with one number
_LOOKED_AT = 100
_NOTES = 3
_ORDER = ("ringing", "answered")  # of calls that go on at the same time


@dataclass(frozen=True)
class PopView:
    """A call at one's own phones, as shown.

    Attributes:
        seconds: since it began to ring, or was answered.
        context: what is known about it, a phrase each.
    """

    pop: Pop
    call: CallView
    seconds: float
    context: Sequence[str]


async def me(request: Request, person: Person) -> Response:
    """Show the call at one's own phones, and the calls before it."""
    parts = parts_of(request)
    feed, phones = parts.feed_of(person), parts.phones_of(person)
    moment, labels = datetime.now(UTC), feed.labels
    here = [
        (pop, call)
        for call in feed.board.calls_of(phones.own)
        if (pop := pop_of(call, phones, labels)) is not None
    ]
    current = min(
        (each for each in here if each[0].state in _ORDER),
        key=lambda each: _ORDER.index(each[0].state),
        default=None,
    )
    before: list[CallView] = []
    shown: PopView | None = None
    if current is not None:
        pop, call = current
        calls = await _calls_with(parts, person, call, moment)
        before = [view_call(each, person.view, labels, moment) for each in calls]
        context = _context(call, calls, others_ringing(call, phones), labels, moment)
        since = call.answered if pop.state == "answered" and call.answered else pop.rang
        seconds = (moment - since).total_seconds()
        shown = PopView(pop, view_call(call, person.view, labels, moment), seconds, context)
    today = await _todays(parts, person)
    response = parts.pages.page(
        request,
        person,
        "me.html",
        phones=sorted(phones.own),
        names=[label_of(pbx, each, labels) for pbx, each in labels if each in phones.own],
        registered=await _registered(parts, person),
        shown=shown,
        ended=[
            (pop, view_call(call, person.view, labels, moment))
            for pop, call in reversed(here)
            if pop.state in ("taken", "missed")
        ][:_NOTES],
        before=before[:_BEFORE],
        today=[view_call(each, person.view, labels, moment) for each in today[:_SHOWN]],
        total=len(today),
        waiting=len(open_callers(feed.missed.callers(), person.view)),
        opens=phones.url is not None,
        may_dial=person.may(Right.DIAL) and bool(phones.own),
        number=shown_number,
    )
    # So that the tab named `crm` can be used again: a page of another site leaves its group else.
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin-allow-popups"
    return response


def _context(
    call: Call, before: Sequence[Call], ringing: Sequence[str], labels: Labels, now: datetime
) -> list[str]:
    said = []
    if call.called.did:
        number = shown_number(call.called.did, masked=False)
        said.append(gettext("dialled {number}", number=number))
    queue = next((leg for leg in call.legs if leg.kind is Kind.QUEUE), None)
    if queue is not None:
        until = call.answered or now
        waited = (until - (queue.rang or call.started)).total_seconds()
        where = label_of(call.pbx, queue.extension, labels)
        said.append(gettext("waited {time} in {queue}", time=duration(waited), queue=where))
    others = [label_of(call.pbx, each, labels) for each in ringing]
    if others:
        names = ", ".join(dict.fromkeys(others))
        said.append(gettext("also rings at {names}", names=names))
    last = next((each for each in before if each.answered_by), None)
    if last is not None and last.answered_by:
        who = label_of(last.pbx, last.answered_by, labels)
        said.append(gettext("spoke last with {name}", name=who))
    return [each if n else each[0].upper() + each[1:] for n, each in enumerate(said)]


async def _calls_with(parts: ConsoleParts, person: Person, call: Call, now: datetime) -> list[Call]:
    """The earlier calls with the number of a call, newest first, of those that a person sees."""
    number = outside_number(call)
    if number is None:
        return []
    region = parts.region_of(person)
    wanted = CallFilter(number=number, before=call.started, region=region)
    page = await search(parts.inbox, wanted, _LOOKED_AT, tenant=person.tenant)
    found = [summarize(kept.state, region) for kept in page.calls]
    return [each for each in found if person.view.shows(each)]


async def _todays(parts: ConsoleParts, person: Person) -> list[Call]:
    """Today's calls at a person's own phones, newest first."""
    region, today = parts.region_of(person), midnight_of(datetime.now(UTC))
    pages = await asyncio.gather(
        *(
            search(
                parts.inbox,
                CallFilter(extension=extension, since=today, region=region),
                _LOOKED_AT,
                tenant=person.tenant,
            )
            for extension in sorted(person.extensions)
        )
    )
    kept = {each.name: each.state for page in pages for each in page.calls}
    found = [summarize(state, region) for state in kept.values()]
    return sorted(found, key=lambda call: call.started, reverse=True)


async def _registered(parts: ConsoleParts, person: Person) -> bool | None:
    """Whether all of the person's phones are registered; None: it is not known."""
    known = [
        state.registered
        for pbx in parts.settings.of(person.tenant).pbx or ["main"]
        for access in {"", person.tenant}
        for extension, state in (await phone_states(parts.inbox.redis, pbx, access)).items()
        if extension in person.extensions
        and parts.settings.tenant_of(pbx, extension) == person.tenant
    ]
    return all(known) if known else None
