"""The wallboard as it was at a moment, from the calls that are kept."""

from datetime import datetime, timedelta

import msgspec

from offhook.call import Call
from offhook.calls import summarize
from offhook.inbox import feed
from offhook_console.board import Board
from offhook_console.moments import midnight_of
from offhook_console.parts import ConsoleParts
from offhook_console.people import Person

_LONGEST = timedelta(hours=12)  # a call that began earlier is not looked for
_HOUR = timedelta(hours=1)
_COUNTED = 5000  # events of a partition, for the events per minute
_TIDY = 1000  # calls after which those that had ended long before are forgotten


async def past_board(parts: ConsoleParts, person: Person, moment: datetime) -> Board:
    """The board of a person's organization at a moment."""
    async with parts.looking_back:
        return await _board(parts, person.tenant, moment)


async def _board(parts: ConsoleParts, tenant: str, moment: datetime) -> Board:
    board, midnight = Board(parts.settings.console.answer_within), midnight_of(moment)
    inbox, hour_ago = parts.inbox, moment - _HOUR
    async for received in feed.received_since(inbox, hour_ago, _COUNTED, tenant, moment):
        board.count_event(received)
    region, began, number = parts.settings.of(tenant).region, min(midnight, moment - _LONGEST), 0
    async for kept in parts.calls.since(began, tenant, moment):
        call = call_at(summarize(kept.state, region), moment)
        if call is not None:
            board.put(call, midnight)
        number += 1
        if number % _TIDY == 0:
            board.forget(moment, midnight)
    board.forget(moment, midnight)
    return board


def call_at(call: Call, moment: datetime) -> Call | None:
    """A call as it was known at a moment; None: it had not begun."""
    if call.started > moment:
        return None
    if call.closed_by and (call.ended or call.started) <= moment:
        return call
    answered = _if_before(call.answered, moment)
    # Who answered without a known time counts as talking all along, as on the live board.
    is_answered = answered is not None or (call.answered is None and call.answered_by is not None)
    rang = (answered or moment) - call.started
    legs = tuple(
        msgspec.structs.replace(
            leg,
            answered=_if_before(leg.answered, moment),
            ended=_if_before(leg.ended, moment),
            status=leg.status if leg.ended and leg.ended <= moment else None,
        )
        for leg in call.legs
        if min(filter(None, (leg.rang, leg.answered, leg.ended)), default=moment) <= moment
    )
    return msgspec.structs.replace(
        call,
        answered=answered,
        answered_by=call.answered_by if is_answered else None,
        ended=None,
        outcome=None,
        closed_by=None,
        ring_seconds=rang.total_seconds(),
        talk_seconds=(moment - answered).total_seconds() if answered else 0.0,
        legs=legs or call.legs[:1],
    )


def _if_before(at: datetime | None, moment: datetime) -> datetime | None:
    return at if at is not None and at <= moment else None
