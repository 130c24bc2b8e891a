"""Now: the calls that go on, today's figures, queues and phones."""

from datetime import UTC, datetime, timedelta

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from offhook_console.call_views import view_call
from offhook_console.first_steps import first_steps, has_begun
from offhook_console.floor import Floor, Phones
from offhook_console.moments import midnight_of, moment_at, url_at
from offhook_console.parts import parts_of
from offhook_console.past_board import past_board
from offhook_console.people import Person, Right

NO_PHONES = Phones(0, 0, [])  # which were registered is known of the present alone
_MINUTE = timedelta(minutes=1)


async def now(request: Request, person: Person) -> Response:
    """Show the wallboard."""
    parts = parts_of(request)
    feed, view, current = parts.feed_of(person), person.view, datetime.now(UTC)
    at = moment_at(request.query_params.get("at"), current)
    if at is not None and at >= current:
        return RedirectResponse("/now", 303)
    is_empty = at is None and not feed.board.has_calls and feed.is_current
    if is_empty and not await has_begun(parts.inbox, person.tenant):
        is_operator = person.may(Right.DELIVERIES) and not person.tenant
        steps = await first_steps(parts) if is_operator else []
        return parts.pages.page(request, person, "first_start.html", steps=steps)
    moment = at or current
    board = feed.board if at is None else await past_board(parts, person, at)
    lanes = {
        lane: [view_call(call, view, feed.labels, moment) for call in board.lane(lane, view)]
        for lane in ("ringing", "talking", "ended")
    }
    minutes = board.per_minute(moment)
    floor = Floor(parts, person.tenant, view)
    return parts.pages.page(
        request,
        person,
        "now.html" if at is None else "now_at.html",
        masked=view.masked,
        all_figures=board.figures(view),
        minutes=minutes,
        total=sum(number for _, number in minutes),
        most=max(number for _, number in minutes),
        queues=floor.queues(board.lane("ringing", view), moment, past=at is not None),
        phones=await _phones(floor, feed.down_since) if at is None else NO_PHONES,
        at=moment,
        midnight=midnight_of(moment),
        before=url_at(moment - _MINUTE),
        after=url_at(moment + _MINUTE),
        ringing=lanes["ringing"],
        talking=lanes["talking"],
        ended=lanes["ended"],
    )


async def _phones(floor: Floor, down_since: datetime | None) -> Phones:
    """The phones; while Redis is away, the page shows what is known without it."""
    if down_since is not None:
        return NO_PHONES
    try:
        return await floor.phones()
    except RedisError:
        return NO_PHONES
