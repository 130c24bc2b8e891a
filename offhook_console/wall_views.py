"""A call as a wall shows it: the queue or agent first, of the caller three digits and no name."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from offhook.call import Call, Kind
from offhook.extensions import ExtensionSettings, Name
from offhook_console.call_views import call_key, view_call
from offhook_console.languages import gettext
from offhook_console.people import View
from offhook_console.wording import number_of, shown_number

_DIGITS = 3
_MASKED = View(masked=True)


@dataclass(frozen=True)
class WallCard:
    """A call on a wall.

    Attributes:
        head: the queue or the agent.
        line: the queue it came through, and the last digits of the outside number.
        clock: seconds that it rings or talks.
    """

    key: str
    state: str
    icon: str
    word: str
    head: str
    line: str
    clock: float


def wall_card(
    call: Call, labels: Mapping[Name, ExtensionSettings], now: datetime | None = None
) -> WallCard:
    """Return a call as a wall shows it."""
    seen = view_call(call, _MASKED, labels, now or datetime.now(UTC))
    out = call.direction == "out"
    head = seen.own.head
    through = ""
    if seen.lane == "talking" and seen.answered_by:
        queue = next((leg.extension for leg in call.legs if leg.kind is Kind.QUEUE), None)
        through = labels[call.pbx, queue].label or queue if queue else ""
        head = seen.answered_by
    if call.direction == "internal":
        party = gettext("internal call")
    else:
        number = shown_number(number_of(call.called if out else call.caller), masked=True)
        last = "".join(filter(str.isdigit, number or ""))[-_DIGITS:]
        if not last:
            party = gettext("withheld number")
        else:
            party = gettext("to …{digits}") if out else gettext("caller …{digits}")
            party = party.format(digits=last)
    return WallCard(
        key=call_key(seen.name),
        state=seen.state,
        icon="out" if out else seen.icon,
        word=gettext("calling out") if out else seen.word,
        head=head,
        line=" · ".join(filter(None, [through, party])),
        clock=seen.clock,
    )
