"""Now: the calls that go on, today's figures, queues and phones; and the live feed."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from offhook.call import Kind
from offhook.operations.phone_states import phone_states
from offhook_console.call_views import view_call
from offhook_console.parts import ConsoleParts, parts_of
from offhook_console.people import Person, View


@dataclass(frozen=True)
class Queue:
    """A queue, and the callers who wait in it."""

    label: str
    extension: str
    waiting: int
    longest: float


@dataclass(frozen=True)
class Phones:
    """How many phones are registered, and the names of those that are not."""

    known: int
    registered: int
    gone: list[str]


async def now(request: Request, person: Person) -> Response:
    """Show the wallboard."""
    parts = parts_of(request)
    view = person.view
    moment = datetime.now(UTC)
    lanes = {
        lane: [
            view_call(call, view, parts.feed.labels, moment)
            for call in parts.feed.board.lane(lane, view)
        ]
        for lane in ("ringing", "talking", "ended")
    }
    minutes = parts.feed.board.per_minute(moment)
    return parts.pages.page(
        request,
        person,
        "now.html",
        masked=view.masked,
        all_figures=parts.feed.board.figures(view),
        minutes=minutes,
        total=sum(number for _, number in minutes),
        most=max(number for _, number in minutes),
        queues=_queues(parts, view, moment),
        phones=await _phones(parts, view),
        ringing=lanes["ringing"],
        talking=lanes["talking"],
        ended=lanes["ended"],
    )


async def live(request: Request, person: Person) -> Response:
    """The live feed, as server-sent events."""
    feed = parts_of(request).feed

    async def events() -> AsyncIterator[ServerSentEvent]:
        async for message in feed.messages(person.view):
            yield ServerSentEvent(message.data, event=message.event)

    return EventSourceResponse(events(), ping=15, headers={"X-Accel-Buffering": "no"})


def _queues(parts: ConsoleParts, view: View, moment: datetime) -> list[Queue]:
    ringing = parts.feed.board.lane("ringing", view)
    found = []
    for (pbx, extension), settings in parts.feed.labels.items():
        if settings.kind is not Kind.QUEUE or (view.own and extension not in view.own):
            continue
        began = [
            call.started for call in ringing if call.pbx == pbx and extension in call.extensions
        ]
        longest = (moment - min(began)).total_seconds() if began else 0.0
        found.append(Queue(settings.label or extension, extension, len(began), longest))
    return found


async def _phones(parts: ConsoleParts, view: View) -> Phones:
    known, gone = 0, []
    for pbx in parts.settings.pbx or ["main"]:
        for extension, state in (await phone_states(parts.inbox.redis, pbx)).items():
            if view.own is not None and extension not in view.own:
                continue
            known += 1
            if not state.registered:
                settings = parts.feed.labels.get((pbx, extension))
                gone.append(f"{extension} {settings.label or '' if settings else ''}".strip())
    return Phones(known, known - len(gone), gone)
