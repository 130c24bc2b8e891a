"""`Pop`: what the phones of a person have to do with a call. Pure.

A pop is sent again whenever it changes: it rings, is answered here or by a colleague, is missed,
or ends. `call` stays the same through transfers, and `number` is that of the original caller.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from offhook.call import Call, Kind, Leg
from offhook.settings.console_table import POP_URL
from offhook_console.call_views import Labels, label_of
from offhook_console.listeners import OwnPhones
from offhook_console.wording import number_of, shown_name, shown_number

State = Literal["ringing", "answered", "taken", "missed", "ended"]
_FIRST = ("answered", "ringing", "ended", "taken", "missed")  # of several phones of one person


class Pop(msgspec.Struct, frozen=True, kw_only=True):
    """A call at the phones of a person.

    Attributes:
        call: the name of the call, PBX/CALLID.
        state: it rings here, is answered here, was taken by a colleague, was missed here, or was
            answered here and has ended.
        extension: the phone.
        number, name: the caller's; masked for people who see masked numbers.
        e164: the number as +442079460100, if its country is known; null if it is masked.
        did: the public number that was called.
        rang: when it began to ring here.
        by: who took it.
        url: what a page opens.
    """

    call: str
    state: State
    extension: str
    number: str | None
    e164: str | None
    name: str | None
    did: str | None
    rang: datetime
    by: str | None = None
    url: str | None = None


def pop_of(call: Call, phones: OwnPhones, labels: Labels) -> Pop | None:
    """The pop of a call for someone with these phones; None: it has nothing to do with them."""
    legs = {  # the last one of each phone
        leg.extension: leg
        for leg in call.legs
        if leg.extension in phones.own and leg.direction != "out" and leg.kind in (None, Kind.PHONE)
    }
    if not legs or call.direction == "out":
        return None
    states = [(_FIRST.index(state := _state(call, leg)), state, leg) for leg in legs.values()]
    _, state, leg = min(states, key=lambda each: each[0])
    taken_by = _taken_by(call, leg) if state == "taken" else None
    party, inside = call.caller, call.direction == "internal" and call.caller.extension
    name = label_of(call.pbx, inside, labels) if inside else party.name
    number = inside or number_of(party)
    pop = Pop(
        call=f"{call.pbx}/{call.id}",
        state=state,
        extension=leg.extension,
        number=number if inside or not phones.masked else shown_number(number, masked=True),
        e164=None if phones.masked else party.e164,
        name=shown_name(name, masked=phones.masked),
        did=call.called.did,
        rang=leg.rang or call.started,
        by=label_of(call.pbx, taken_by, labels) if taken_by else None,
    )
    return replace(pop, url=filled_in(phones.url, pop)) if phones.url else pop


def others_ringing(call: Call, phones: OwnPhones) -> Sequence[str]:
    """The other phones at which a call rings."""
    return [
        leg.extension
        for leg in call.legs
        if leg.extension not in phones.own
        and leg.kind in (None, Kind.PHONE)
        and leg.direction != "out"
        and _state(call, leg) == "ringing"
    ]


def filled_in(template: str, pop: Pop) -> str:
    """A URL template with what is known of a call, percent-encoded.

    Args:
        template: with `{number}`, `{e164}`, `{name}`, `{did}` or `{call}`.
    """
    for name in POP_URL:
        template = template.replace(f"{{{name}}}", quote(getattr(pop, name) or "", safe=""))
    return template


def _state(call: Call, leg: Leg) -> State:
    if leg.answered is not None or (call.answered_by == leg.extension and leg.ended is not None):
        return "ended" if leg.ended or call.closed_by else "answered"
    if _taken_by(call, leg) is not None:
        return "taken"
    return "missed" if leg.ended or call.closed_by else "ringing"


def _taken_by(call: Call, leg: Leg) -> str | None:
    """The colleague who answered after this phone had begun to ring."""
    rang = leg.rang or call.started
    for other in call.legs:
        person = other.kind in (None, Kind.PHONE) and other.direction != "out"
        if other is not leg and person and other.answered and other.answered >= rang:
            return None if other.extension == leg.extension else other.extension
    return None
