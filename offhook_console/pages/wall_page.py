"""The wall: the wallboard for a screen that is seen from four metres, read-only and masked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from offhook.call import Call
from offhook.operations.wall_links import FoundLink, find_wall_link
from offhook_console.floor import Floor, agents_of
from offhook_console.languages import gettext, spoken
from offhook_console.listeners import Listener
from offhook_console.pages.live_page import stream
from offhook_console.parts import ConsoleParts, parts_of
from offhook_console.people import Person, View
from offhook_console.problem_details import ConsoleError
from offhook_console.wall_views import WallCard, wall_card

_MOST = 12  # cards of a lane, and agents: more do not fit
_LONGEST = 200  # characters of a link's secret


async def wall(request: Request, person: Person) -> Response:
    """Show the wall to a person."""
    return await _page(request, person.tenant, _of(person), "/wall/live", None)


async def wall_live(request: Request, person: Person) -> Response:
    """The live feed of a person's wall: it says only that something changed."""
    return stream(request, person, parts_of(request).feed_of(person).listening(_of(person)))


async def linked_wall(request: Request) -> Response:
    """Show the wall on the screen that has a link."""
    found = await _found(request)
    parts_of(request).seen.note(found.tenant, f"wall {found.link.id}")
    live = f"/wall/{request.path_params['link']}/live"
    return await _page(request, found.tenant, _of_link(), live, found)


async def linked_wall_live(request: Request) -> Response:
    """The live feed of a screen; `dark` is its last event once its link is revoked."""
    found, parts = await _found(request), parts_of(request)

    @contextmanager
    def listening() -> Iterator[Listener]:
        with (
            parts.feeds[found.tenant].listening(_of_link()) as listener,
            parts.walls.watched(found, listener),
        ):
            yield listener

    return stream(request, None, listening())


def _of_link() -> View:
    return View(masked=True, wall=True, language=spoken())


def _of(person: Person) -> View:
    return replace(person.view, masked=True, deliveries=False, wall=True)


async def _found(request: Request) -> FoundLink:
    parts = parts_of(request)
    secret = request.path_params["link"]
    found = None
    if len(secret) <= _LONGEST:
        found = await find_wall_link(parts.inbox.redis, secret)
    if found is None or (found.tenant and found.tenant not in parts.settings.tenants):
        raise ConsoleError(404, gettext("This wall link was revoked, or never existed."))
    return found


async def _page(
    request: Request, tenant: str, view: View, live: str, found: FoundLink | None
) -> Response:
    parts = parts_of(request)
    feed, now = parts.feeds[tenant], datetime.now(UTC)
    floor = Floor(parts, tenant, view)
    # All at one moment: while the page waits for Redis, a call may move to the other lane.
    board = feed.board
    ringing, talking = board.lane("ringing", view), board.lane("talking", view)
    counts, figures = board.counts(view), board.figures(view)
    queues = floor.queues(ringing, now)
    agents = agents_of(queues) or await floor.agents()
    theme = request.cookies.get("theme")
    html = parts.pages.html(
        "wall.html",
        theme=theme if theme in ("light", "dark") else None,
        here=request.url.path,
        live=live,
        link=found.link if found else None,
        title=tenant or "Offhook",
        clock=now,
        all_figures=figures,
        ringing=_cards(parts, tenant, ringing, now),
        talking=_cards(parts, tenant, talking, now),
        counts=counts,
        queues=queues,
        agents=agents[:_MOST],
        idle=sum(1 for each in agents if each.state == "ok"),
        idle_is_free=bool(agents_of(queues)),
        all_agents=len(agents),
    )
    return HTMLResponse(html)


def _cards(parts: ConsoleParts, tenant: str, calls: list[Call], now: datetime) -> list[WallCard]:
    return [wall_card(call, parts.feeds[tenant].labels, now) for call in calls[:_MOST]]
