"""Now: the calls that go on, today's figures, queues and phones."""

from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from offhook.call import Kind
from offhook.operations.phone_states import phone_states
from offhook_console.call_views import view_call
from offhook_console.parts import ConsoleParts, parts_of
from offhook_console.people import Person


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
    feed, view = parts.feed_of(person), person.view
    moment = datetime.now(UTC)
    lanes = {
        lane: [view_call(call, view, feed.labels, moment) for call in feed.board.lane(lane, view)]
        for lane in ("ringing", "talking", "ended")
    }
    minutes = feed.board.per_minute(moment)
    return parts.pages.page(
        request,
        person,
        "now.html",
        masked=view.masked,
        all_figures=feed.board.figures(view),
        minutes=minutes,
        total=sum(number for _, number in minutes),
        most=max(number for _, number in minutes),
        queues=_queues(parts, person, moment),
        phones=await _phones(parts, person),
        ringing=lanes["ringing"],
        talking=lanes["talking"],
        ended=lanes["ended"],
    )


def _queues(parts: ConsoleParts, person: Person, moment: datetime) -> list[Queue]:
    feed = parts.feed_of(person)
    ringing = feed.board.lane("ringing", person.view)
    found = []
    for (pbx, extension), settings in feed.labels.items():
        if settings.kind is not Kind.QUEUE or not _sees(parts, person, pbx, extension):
            continue
        began = [
            call.started for call in ringing if call.pbx == pbx and extension in call.extensions
        ]
        longest = (moment - min(began)).total_seconds() if began else 0.0
        found.append(Queue(settings.label or extension, extension, len(began), longest))
    return found


async def _phones(parts: ConsoleParts, person: Person) -> Phones:
    known, gone = 0, []
    for pbx in parts.settings.of(person.tenant).pbx or ["main"]:
        for access in {"", person.tenant}:
            states = await phone_states(parts.inbox.redis, pbx, access)
            for extension, state in states.items():
                if not _sees(parts, person, pbx, extension):
                    continue
                known += 1
                if not state.registered:
                    settings = parts.feed_of(person).labels.get((pbx, extension))
                    gone.append(f"{extension} {settings.label or '' if settings else ''}".strip())
    return Phones(known, known - len(gone), gone)


def _sees(parts: ConsoleParts, person: Person, pbx: str, extension: str) -> bool:
    """Return whether an extension is the person's own, or one of the organization."""
    own = person.view.own
    mine = parts.settings.tenant_of(pbx, extension) == person.tenant
    return mine and (own is None or extension in own)
